"""Redis wiped, or out of memory, in the middle of the load: the bridge hands everything over again."""

from functools import partial

import pytest
import redis

from tests.waiting import wait_until
from tests.world import NEVER, World, events

_COUNT = 20_000


def _more_than(world: World, count: int) -> bool:
    return world.count() > count


@pytest.mark.parametrize("fault", ["wiped", "out of memory"])
def test_nothing_is_lost(ready: World, fault: str) -> None:
    made = events(_COUNT)
    ready.produce(list(made.values()))
    pod = ready.consume(batch_records="100", batch_deadline_seconds=NEVER)
    server = redis.Redis.from_url(ready.variables["REDIS_URL"])
    for wanted in (1000, 5000, 9000):
        wait_until(partial(_more_than, ready, wanted), "the load is under way")
        if fault == "wiped":
            server.flushall()
        else:
            server.config_set("maxmemory", "1")
            wait_until(lambda: pod.lines("service.unavailable"), "the bridge says so")
            server.config_set("maxmemory", "0")
        ready.stored_within(15, f"Redis was {fault}")
    server.close()
    ready.wait_for(_COUNT, 90)
    ready.holds_exactly(made)
