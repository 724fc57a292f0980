"""PostgreSQL fails over to its standby while the old primary keeps its sessions: nothing is lost, work resumes soon."""

import contextlib
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import requests

from bootstrap.localstack.stack import Stack
from tests.clients import events
from tests.programs import ROOT
from tests.replication import Pair, pair
from tests.waiting import wait_until
from tests.world import World

_COUNT = 12_000
_READS_END_SECONDS = 60


@pytest.fixture
def servers(stack: Stack, tmp_path: Path) -> Iterator[tuple[World, Pair]]:
    """A world whose PostgreSQL is a pair of this test's own."""
    outside = {name: stack.variables[name] for name in ("KAFKA_BROKERS", "REDIS_URL")}
    with Stack(tmp_path, outside, ROOT / ".local" / "kafka-4.4.0") as own, pair(own, tmp_path) as servers:
        world = World(own)
        world.init()
        yield world, servers
        world.close()
        world.show_logs()


@contextmanager
def posting(world: World) -> Iterator[set[str]]:
    """A client that posts without a pause; yields the ids that were accepted."""
    accepted: set[str] = set()
    ending = threading.Event()

    def post() -> None:
        with requests.Session() as session:
            while not ending.wait(0.01):
                body = {"id": str(uuid.uuid4()), "type": "posted"}
                headers = {"Idempotency-Key": body["id"]}  # which the API keeps in PostgreSQL
                with contextlib.suppress(requests.RequestException):
                    if session.post(f"{world.url}/messages", json=body, headers=headers, timeout=30).status_code == 202:
                        accepted.add(body["id"])

    thread = threading.Thread(target=post)
    thread.start()
    try:
        yield accepted
    finally:
        ending.set()
        thread.join()


def test_storing_goes_on_at_the_new_primary(servers: tuple[World, Pair]) -> None:
    world, both = servers
    both.synchronize()
    made = events(_COUNT)
    world.serve()
    pod = world.consume(batch_records="50")
    with posting(world) as accepted:
        world.produce(list(made.values()))
        wait_until(lambda: world.count() > 500, "the load is under way")
        both.fail_over()
        assert world.count() < _COUNT
        world.stored_within(5, "the failover")
        wait_until(lambda: world.count() > _COUNT, "the load is nearly stored", 300)  # for which nothing is promised
    assert len(accepted) > 20
    world.all_committed()
    world.wait_for(_COUNT + len(accepted))
    world.holds_exactly({*made, *accepted})
    assert not pod.lines("record.dead_lettered")
    for message_id in list(accepted)[-10:]:
        wait_until(partial(_found, world, message_id), "the API reads there, too", _READS_END_SECONDS)
    wait_until(lambda: both.sessions(world.topic) == 0, "nobody talks to the old primary", _READS_END_SECONDS)


def _found(world: World, message_id: str) -> bool:
    return requests.get(f"{world.url}/messages/{message_id}", timeout=30).ok
