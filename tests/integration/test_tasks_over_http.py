"""What operators see of the users' tasks over HTTP, whatever is in the tables."""

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from tasks.store import connection, runs, task_status
from tasks.store.task_status import COUNTED
from tests.world import World


@pytest.fixture
def _session(client: FlaskClient) -> Iterator[None]:
    with connection.database.connection_context():
        yield


def _register(world: World, *names: str) -> list[int]:
    return [world.sql("INSERT INTO task (name) VALUES (%s) RETURNING id", name)[0][0] for name in names]


def _oblige(world: World, task: int, count: int) -> None:
    world.sql(
        'INSERT INTO chunk (task, topic, "partition", first_offset, next_offset, stored_at, messages, bytes)'
        " SELECT %s, 't', 0, n, n + 1, now() - interval '1 minute', 3, 9 FROM generate_series(1, %s) n",
        *(task, count),
    )


def _add_runs(world: World, task: str, state: str, count: int) -> None:
    world.sql(
        'INSERT INTO run (task, message_id, topic, "partition", "offset", stored_at, state, attempts, error, traceback)'
        " SELECT %s, gen_random_uuid(), 't', 0, n, now(), %s, 4, 'ValueError', '' FROM generate_series(1, %s) n",
        *(task, state, count),
    )


def _stats(client: FlaskClient) -> dict[str, dict[str, Any]]:
    body = client.get("/stats").get_json()
    return {task.pop("name"): task for task in body["tasks"]}


def test_statistics_have_what_waits_and_what_failed(ready: World, client: FlaskClient) -> None:
    _, busy = _register(ready, "idle", "busy")
    _oblige(ready, busy, 5)
    _add_runs(ready, "busy", "failed", 2)
    _add_runs(ready, "busy", "retrying", 1)
    _add_runs(ready, "busy", "discarded", 9)
    ready.sql("INSERT INTO paused_task (name, reason) VALUES ('idle', 'a test')")
    ready.sql("UPDATE task SET retired_at = now() WHERE id = %s", *_register(ready, "retired"))
    found = _stats(client)
    assert 60 <= found["busy"].pop("oldest_seconds") < 120
    nothing = {"retired": False, "at_least": False, "waiting": 0, "retrying": 0, "failed": 0}
    assert found == {
        "busy": {**nothing, "paused": None, "waiting": 15, "retrying": 1, "failed": 2},
        "idle": {**nothing, "paused": "a test", "oldest_seconds": 0},
    }


def test_counts_end_before_they_cost_much(ready: World, client: FlaskClient) -> None:
    full, _, exact = _register(ready, "full", "failing", "exact")
    _oblige(ready, full, 3 * COUNTED)
    _oblige(ready, exact, 3)
    _add_runs(ready, "failing", "failed", 3 * COUNTED)
    _add_runs(ready, "exact", "retrying", 3)
    found = _stats(client)
    assert (found["full"]["waiting"], found["full"]["at_least"]) == (3 * COUNTED, True)
    assert (found["failing"]["failed"], found["failing"]["at_least"]) == (COUNTED, True)
    assert (found["exact"]["waiting"], found["exact"]["retrying"], found["exact"]["at_least"]) == (9, 3, False)
    ready.sql("ANALYZE")
    [(plan,)] = ready.sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {task_status._ALL}")
    assert max(_rows(plan[0]["Plan"])) <= COUNTED


def _rows(plan: dict[str, Any]) -> Iterator[float]:
    """How many rows each step of a plan has looked at, each time."""
    yield plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    for part in plan.get("Plans", ()):
        yield from _rows(part)


@pytest.mark.usefixtures("_session")
def test_readiness_shows_why_a_task_does_not_run(ready: World, client: FlaskClient) -> None:
    def shown() -> dict[str, Any]:
        tasks = client.get("/health/ready").get_json()["tasks"]
        assert all(task["ok"] is (task["reason"] is None) for task in tasks.values())
        return {name: task["reason"] for name, task in tasks.items()}

    assert shown() == {}
    _register(ready, "mail", "book")
    nobody = "no running worker has its code"
    assert shown() == {"book": nobody, "mail": nobody}
    runs.beat("pod-1", ["book", "gone"])
    runs.beat("pod-2", ["mail"], "redis: it hangs")
    assert shown() == {"book": None, "mail": "its workers cannot run it: pod-2: redis: it hangs"}
    runs.beat("pod-1", ["book", "mail"])
    task_status.pause("book", "a test")
    assert shown() == {"book": "paused: a test", "mail": None}
    ready.sql("UPDATE task_worker SET beat_at = now() - interval '1 minute' WHERE name = 'pod-1'")
    runs.beat("pod-2", ["mail"])
    assert shown() == {"book": "paused: a test", "mail": None}
    runs.leave("pod-2")
    assert shown()["mail"] == nobody
