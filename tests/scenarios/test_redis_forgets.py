"""Redis wiped, out of memory, or rejecting commands under load: the bridge redelivers everything."""

from functools import partial
from typing import Any

import pytest
import redis

from tasks.worker import app
from tests.clients import events
from tests.programs import NEVER
from tests.waiting import wait_until
from tests.world import World

_COUNT = 20_000
_TIMES = 10


def _refused(server: redis.Redis) -> int:
    statistics: dict[str, Any] = server.info("errorstats")
    return int(statistics.get("errorstat_OOM", {"count": 0})["count"])


def _more_refused(server: redis.Redis, count: int) -> bool:
    return _refused(server) > count + 5


@pytest.mark.parametrize("fault", ["wiped", "out of memory"])
def test_nothing_is_lost(ready: World, fault: str) -> None:
    made = events(_COUNT)
    ready.consume(batch_records="100", batch_deadline_seconds=NEVER)
    server = redis.Redis.from_url(ready.variables["REDIS_URL"])
    for produced in ready.under_load(made, _TIMES):
        if fault == "wiped":
            server.flushall()
        else:
            refused = _refused(server)
            server.config_set("maxmemory", "1")
            wait_until(partial(_more_refused, server, refused), "Redis refuses commands")
            server.config_set("maxmemory", "0")
        ready.wait_for(produced, 15)
    server.close()
    ready.holds_exactly(made)
    ready.all_committed()


def test_acknowledgements_that_redis_refuses_stop_no_worker(ready: World) -> None:
    made = events(_COUNT)
    server = redis.Redis.from_url(ready.variables["REDIS_URL"])
    ready.consume(batch_records="100", batch_deadline_seconds=NEVER)
    server.acl_setuser("default", enabled=True, commands=["-zrem"], reset=False)  # as a server that became a replica
    try:
        ready.produce(list(made.values())[: _COUNT // 2])
        wait_until(lambda: len(server.acl_log()) > 0, "Redis refuses an acknowledgement")
        wait_until(lambda: ready.count() > 500, "the load is under way")
    finally:
        server.acl_setuser("default", enabled=True, commands=["+zrem"], reset=False)
    ready.produce(list(made.values())[_COUNT // 2 :])
    ready.wait_for(_COUNT, 30)
    ready.holds_exactly(made)
    ready.all_committed()
    server.close()


def test_what_celery_cannot_read_stops_nothing(ready: World) -> None:
    made = events(_COUNT)
    ready.produce(list(made.values()))
    ready.consume(batch_records="100", batch_deadline_seconds=NEVER)
    server = redis.Redis.from_url(ready.variables["REDIS_URL"])
    wait_until(lambda: ready.count() > 1000, "the load is under way")
    server.rpush(app.queue(ready.settings()), b"no task")
    ready.wait_for(_COUNT, 90)
    ready.holds_exactly(made)
    assert server.llen(app.queue(ready.settings())) == 0
    server.close()
