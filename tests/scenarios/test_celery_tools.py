"""Celery's own tools see the workers: `celery inspect` and the real Flower. They can change nothing."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import orjson
import psutil
import redis
import requests

from bootstrap.localstack.ports import free_port
from tasks.config.environment import child_environment
from tests.clients import events
from tests.programs import ABSENT, ROOT
from tests.waiting import wait_until
from tests.world import World

_COUNT = 500
_CELERY = (sys.executable, "-m", "celery", "-A", "tasks.app")


def _environment(world: World, **changed: str) -> dict[str, str]:
    merged = {**child_environment({}), "CELERY_MONITORING": "on", **world.variables, **changed}
    return {name: value for name, value in merged.items() if value != ABSENT}


def _celery(world: World, *arguments: str, **changed: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*_CELERY, *arguments], env=_environment(world, **changed), capture_output=True, text=True, cwd=ROOT, timeout=90
    )


def _inspect(world: World, command: str) -> dict[str, Any]:
    """What each worker answers, by its name; empty while none does."""
    done = _celery(world, "inspect", command, "--json", "--timeout", "2")
    return dict(orjson.loads(done.stdout)) if done.returncode == 0 else {}


def _answering(world: World, count: int) -> dict[str, Any]:
    """The workers once so many answer."""

    def answering() -> dict[str, Any]:
        found = _inspect(world, "ping")
        return found if len(found) == count else {}

    return wait_until(answering, f"{count} workers answer")


@contextlib.contextmanager
def _flower(world: World) -> Iterator[str]:
    """The API of the real Flower."""
    port = free_port()
    command = [*_CELERY, "flower", "--address=127.0.0.1", f"--port={port}"]
    with tempfile.TemporaryFile() as log:
        flower = subprocess.Popen(
            command, env=_environment(world, FLOWER_UNAUTHENTICATED_API="true"), stdout=log, stderr=log, cwd=ROOT
        )
        try:
            yield f"http://127.0.0.1:{port}/api"
        finally:
            flower.kill()
            flower.wait(10)
            log.seek(0)
            print(log.read().decode(errors="replace"))


def _get(url: str) -> Any:
    with contextlib.suppress(requests.ConnectionError):
        response = requests.get(url, timeout=30)
        return response.json() if response.status_code == 200 else None
    return None


def _names(workers: dict[str, Any]) -> list[str]:
    return sorted(name.split("@")[0] for name in workers)


def test_celerys_commands_see_the_workers_of_all_pods(shop: World) -> None:
    pods = [shop.consume(celery_monitoring="on"), shop.start("consume", "--only", "worker", celery_monitoring="on")]
    assert _names(_answering(shop, 3)) == ["tasks", "worker", "worker"]
    registered = _inspect(shop, "registered")
    assert {name.split("@")[0]: tasks for name, tasks in registered.items()} == {
        "worker": ["tasks.persist"],
        "tasks": ["tasks.execute"],
    }
    parents = {one["pid"] for one in _inspect(shop, "stats").values()}
    assert len(parents) == 3 and parents < {process.pid for pod in pods for process in pod.family()}
    queues = {queue["name"] for found in _inspect(shop, "active_queues").values() for queue in found}
    assert queues >= {f"persist.{shop.topic}", f"execute.{shop.topic}.default"}
    with shop.connect() as session, session.cursor() as cursor:
        cursor.execute("LOCK TABLE message IN ACCESS EXCLUSIVE MODE")  # so that storing takes its time
        shop.produce(list(events(_COUNT).values()), partition=1)
        active = wait_until(lambda: _active(shop), "a batch is being stored")
    assert {one["name"] for one in active} == {"tasks.persist"}
    shown = f"topic={shop.topic} partition=1 first_offset="
    assert all(shown in one["args"] and "seal" not in one["args"] for one in active), active


def _active(world: World) -> list[dict[str, Any]]:
    return [task for tasks in _inspect(world, "active").values() for task in tasks]


def test_flower_shows_workers_tasks_and_queues(shop: World) -> None:
    shop.consume(celery_monitoring="on")
    _answering(shop, 2)
    with _flower(shop) as api:
        workers = wait_until(lambda: _get(f"{api}/workers?refresh=true"), "Flower knows the workers")
        assert _names(workers) == ["tasks", "worker"]
        wait_until(lambda: set(_get(f"{api}/workers?status=true").values()) == {True}, "they are online")

        def tasks() -> dict[str, str]:
            shop.produce(list(events(_COUNT).values()), partition=1)
            found = _get(f"{api}/tasks?state=SUCCESS").values()
            shown = {one["name"]: one["args"] for one in found if one["received"]}  # not before events were enabled
            return shown if len(shown) == 2 else {}

        shown = wait_until(tasks, "Flower shows tasks of both kinds")
        assert f"topic={shop.topic} partition=1 first_offset=" in shown["tasks.persist"]
        assert shown["tasks.execute"].strip("('),") in ("exact", "at_least_once", "in_batches")
        everything = orjson.dumps([_get(f"{api}/{path}") for path in ("tasks", "workers?refresh=true")])
        assert b"seal" not in everything and b"reply_to" not in everything
        queues = _get(f"{api}/queues/length")["active_queues"]
        assert {one["name"] for one in queues} >= {f"persist.{shop.topic}", f"execute.{shop.topic}.default"}


def test_celerys_commands_change_no_worker(ready: World) -> None:
    pod = ready.consume(celery_monitoring="on")
    _answering(ready, 1)
    before = {one.pid for one in pod.family()}
    for command in (("cancel_consumer", f"persist.{ready.topic}"), ("pool_shrink", "2"), ("shutdown",)):
        done = _celery(ready, "control", *command, "--timeout", "2")
        assert "workers can be inspected, not changed" in done.stdout, command
    ready.produce(list(events(_COUNT).values()))
    ready.wait_for(_COUNT)
    assert {one.pid for one in pod.family()} == before


def test_workers_answer_again_after_redis_was_lost(ready: World) -> None:
    pod = ready.consume(celery_monitoring="on")
    names = _answering(ready, 1)
    server = redis.Redis.from_url(ready.variables["REDIS_URL"])
    for kind in ("pubsub", "normal"):
        server.client_kill_filter(_type=kind, skipme=True)
        made = events(_COUNT)
        ready.produce(list(made.values()))
        assert _answering(ready, 1) == names
    ready.wait_for(2 * _COUNT)
    assert not pod.lines("process.failed") and psutil.pid_exists(pod.process.pid)


def test_without_a_redis_of_all_pods_a_sentence_says_why(ready: World) -> None:
    done = _celery(ready, "inspect", "ping", REDIS_URL=ABSENT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tasks.app: REDIS_URL is not set. Without it each pod has a Redis of its own")
    assert len(done.stderr.splitlines()) == 1


def test_no_worker_runs_from_the_application_of_the_tools(ready: World) -> None:
    done = _celery(ready, "worker")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "python -m bootstrap consume" in done.stderr


def test_workers_that_are_not_to_be_seen_are_not(ready: World) -> None:
    ready.consume(celery_monitoring="off")
    server = redis.Redis.from_url(ready.variables["REDIS_URL"])
    assert not server.pubsub_channels()
    done = _celery(ready, "status", CELERY_MONITORING="off")
    assert (done.returncode, done.stderr.strip()) == (
        2,
        "tasks.app: CELERY_MONITORING is off, so the workers do not answer",
    )


def test_a_redis_without_channels_stops_no_worker(ready: World) -> None:
    server = redis.Redis.from_url(ready.variables["REDIS_URL"])
    server.execute_command("ACL", "SETUSER", "default", "resetchannels")
    try:
        pod = ready.consume(celery_monitoring="on")
        ready.produce(list(events(_COUNT).values()))
        ready.wait_for(_COUNT)
        assert len(pod.lines("monitoring.denied")) == 1
    finally:
        server.execute_command("ACL", "SETUSER", "default", "allchannels")
