"""Somebody writes to Redis what no worker and no bridge has written: nothing is lost, and nothing is stored of it."""

import base64
from typing import Any

import orjson
import pytest
import redis

from tasks.claim_check import Claim, Result, pack
from tasks.message import Record
from tasks.seal import of_deployment
from tests.clients import events
from tests.programs import Program
from tests.waiting import wait_until
from tests.world import World

_COUNT = 17


@pytest.fixture
def server(ready: World) -> redis.Redis:
    return redis.Redis.from_url(ready.variables["REDIS_URL"])


def _queued(world: World, server: redis.Redis) -> list[dict[str, Any]]:
    """The tasks that wait for a worker, as kombu has queued them."""
    return [orjson.loads(line) for line in server.lrange(f"persist.{world.topic}", 0, -1)]


def _claim(task: dict[str, Any]) -> Claim:
    arguments, _, _ = orjson.loads(base64.b64decode(task["body"]))
    return Claim.of(arguments[0])


def _bridge_alone(world: World, server: redis.Redis, made: dict[str, bytes]) -> tuple[Program, Claim]:
    """A bridge that has handed a batch over, and no worker to take it."""
    pod = world.consume("--only", "bridge")
    world.produce(list(made.values()), partition=0)
    [task] = wait_until(lambda: _queued(world, server), "a batch is handed over")
    return pod, _claim(task)


def _say_stored(world: World, server: redis.Redis, claim: Claim, sealed: bool) -> None:
    fields: dict[str, Any] = dict(Result(claim.batch, claim.attempt, "stored", stored=_COUNT).__dict__)
    seal = of_deployment(world.settings()).of(fields) if sealed else "0" * 32
    server.delete(claim.key, f"persist.{world.topic}")
    server.rpush(claim.reply_to, orjson.dumps({**fields, "seal": seal}))


@pytest.mark.parametrize("sealed", [False, True])
def test_a_result_that_is_not_true_loses_nothing(ready: World, server: redis.Redis, sealed: bool) -> None:
    """Even one with the right seal: PostgreSQL says what is stored."""
    made = events(_COUNT)
    pod, claim = _bridge_alone(ready, server, made)
    _say_stored(ready, server, claim, sealed)
    wait_until(lambda: pod.lines("records.missing" if sealed else "result.forged"), "the bridge says so")
    ready.start("consume", "--only", "worker")
    ready.wait_for(_COUNT)
    ready.holds_exactly(made)
    ready.all_committed()


def test_a_batch_that_no_bridge_has_sealed_is_not_stored(ready: World, server: redis.Redis) -> None:
    made = events(_COUNT)
    _bridge_alone(ready, server, made)
    [task] = _queued(ready, server)
    arguments, *rest = orjson.loads(base64.b64decode(task["body"]))
    # It would say that a thousand records are stored, and store another one.
    forged = {**arguments[0], "batch": "forged", "first_offset": 0, "begin": 0, "last_offset": 999, "records": 1}
    body = base64.b64encode(orjson.dumps([[forged], *rest])).decode()
    server.set(Claim.of(forged).key, pack([Record(ready.topic, 0, 999, 0, None, b"{}", ())]))
    server.rpush(f"persist.{ready.topic}", orjson.dumps({**task, "body": body}))  # workers take from this end
    worker = ready.start("consume", "--only", "worker")
    ready.wait_for(_COUNT)
    ready.holds_exactly(made)
    [said] = wait_until(lambda: worker.lines("batch.forged"), "the worker says so")
    assert said["batch"] == "forged"
