"""A PostgreSQL that responds and rejects (no connections, read-only, full) stops storing, and nothing is lost."""

import os
import time
from collections.abc import Callable

import orjson
import psutil
import pytest

from tests.clients import events
from tests.statements import END_ALL_CONNECTIONS
from tests.waiting import wait_until
from tests.world import World

_COUNT = 20_000


def _file_size(world: World, most: int) -> None:
    """Like a full disk, a limit on the size of files makes PostgreSQL fail to extend a table."""
    server = psutil.Process(world.stack.servers["postgresql"].pid)
    server.rlimit(psutil.RLIMIT_FSIZE, (most, psutil.RLIM_INFINITY))


REFUSALS: dict[str, tuple[Callable[[World], None], Callable[[World], None]]] = {
    "no connections": (
        lambda world: world.admin("ALTER DATABASE {database} ALLOW_CONNECTIONS false"),
        lambda world: world.admin("ALTER DATABASE {database} ALLOW_CONNECTIONS true"),
    ),
    "read-only": (
        lambda world: world.admin("ALTER DATABASE {database} SET default_transaction_read_only = on"),
        lambda world: world.admin("ALTER DATABASE {database} SET default_transaction_read_only = off"),
    ),
    "disk full": (lambda world: _file_size(world, 17 << 20), lambda world: _file_size(world, psutil.RLIM_INFINITY)),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_it_waits_and_goes_on(ready: World, refusal: str) -> None:
    made = {f"00000000-0000-4000-8000-{n:012}": os.urandom(600).hex() for n in range(_COUNT)}
    ready.produce([orjson.dumps({"id": message_id, "filler": text}) for message_id, text in made.items()])
    pod = ready.consume(batch_records="100")
    wait_until(lambda: ready.count() > 500, "the load is under way")
    begin, end = REFUSALS[refusal]
    begin(ready)
    ready.admin(END_ALL_CONNECTIONS)
    held = wait_until(
        lambda: [x for x in pod.lines("bridge.backpressure") if x["reason"] == "database_away"], "the bridge says so"
    )
    assert held[0]["failure"]
    end(ready)  # nothing ends the sessions that began meanwhile: the workers have to leave them
    ready.stored_within(5, f"PostgreSQL is over: {refusal}")
    ready.wait_for(_COUNT, 120)
    ready.holds_exactly(made)


def test_an_outage_longer_than_kafka_waits_for_a_poll_loses_nothing(ready: World) -> None:
    made = events(_COUNT)
    ready.produce(list(made.values()), options={"linger.ms": 100})  # many records in each batch of Kafka's
    pod = ready.consume(batch_records="100")
    wait_until(lambda: ready.count() > 500, "the load is under way")
    begin, end = REFUSALS["no connections"]
    begin(ready)
    ready.admin(END_ALL_CONNECTIONS)
    began = time.monotonic()
    wait_until(lambda: pod.lines("partitions.paused"), "the bridge pauses its partitions")
    wait_until(lambda: time.monotonic() - began > 30, "the outage is over", 40)
    end(ready)
    ready.stored_within(5, "an outage of 30 s")
    ready.wait_for(_COUNT, 120)
    ready.holds_exactly(made)
