"""Redis wiped, or out of memory, in the middle of the load: the bridge hands everything over again."""

import random
from functools import partial
from typing import Any

import pytest
import redis

from tasks import app
from tests.waiting import wait_until
from tests.world import NEVER, World, events

_COUNT = 20_000
_TIMES = 10


def _more_than(world: World, count: int) -> bool:
    return world.count() > count


def _refused(server: redis.Redis) -> int:
    statistics: dict[str, Any] = server.info("errorstats")
    return int(statistics.get("errorstat_OOM", {"count": 0})["count"])


def _more_refused(server: redis.Redis, count: int) -> bool:
    return _refused(server) > count + 5


@pytest.mark.parametrize("fault", ["wiped", "out of memory"])
def test_nothing_is_lost(ready: World, fault: str) -> None:
    made = events(_COUNT)
    values, part = list(made.values()), _COUNT // _TIMES
    ready.consume(batch_records="100", batch_deadline_seconds=NEVER)
    server = redis.Redis.from_url(ready.variables["REDIS_URL"])
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"seed {seed}")
    for number in range(_TIMES):
        moment = ready.count() + chance.randrange(part)
        ready.produce(values[number * part : (number + 1) * part])
        wait_until(partial(_more_than, ready, moment), "the load is under way")
        if fault == "wiped":
            server.flushall()
        else:
            refused = _refused(server)
            server.config_set("maxmemory", "1")
            wait_until(partial(_more_refused, server, refused), "Redis refuses commands")
            server.config_set("maxmemory", "0")
        ready.stored_within(15, f"Redis was {fault}", of=(number + 1) * part)
    server.close()
    ready.wait_for(_COUNT, 90)
    ready.holds_exactly(made)


def test_what_celery_cannot_read_stops_nothing(ready: World) -> None:
    made = events(_COUNT)
    ready.produce(list(made.values()))
    ready.consume(batch_records="100", batch_deadline_seconds=NEVER)
    server = redis.Redis.from_url(ready.variables["REDIS_URL"])
    wait_until(partial(_more_than, ready, 1000), "the load is under way")
    server.rpush(app.queue(ready.settings()), b"no task")
    ready.wait_for(_COUNT, 90)
    ready.holds_exactly(made)
    assert server.llen(app.queue(ready.settings())) == 0
    server.close()
