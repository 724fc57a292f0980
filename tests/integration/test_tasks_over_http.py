"""What operators see of the users' tasks over HTTP, whatever is in the tables; retiring and replaying."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest
from flask.testing import FlaskClient

from api.views import runs as views
from tasks.store import chunks, connection, replays, runs, task_status
from tasks.store.task_status import COUNTED
from tests.waiting import wait_until
from tests.world import World

_MANY = 20 * COUNTED
_DAY = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}
_NONE_LOCKED_OUT = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def _beat(owner: str, *tasks: str, failure: str | None = None) -> None:
    with connection.database.connection_context():
        runs.beat(owner, tasks, failure)


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
        'INSERT INTO run (task, message_id, topic, "partition", "offset", stored_at, state, attempts, error, traceback,'
        " due_at) SELECT %s, gen_random_uuid(), 't', 0, n, now(), %s, 4, 'ValueError', '', now()"
        " FROM generate_series(1, %s) n",
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
    _add_runs(ready, "busy", "waiting", 4)
    _add_runs(ready, "busy", "discarded", 9)
    ready.sql("INSERT INTO paused_task (name, reason) VALUES ('idle', 'a test')")
    ready.sql("UPDATE task SET retired_at = now() WHERE id = %s", *_register(ready, "retired"))
    found = _stats(client)
    assert 60 <= found["busy"].pop("oldest_seconds") < 120
    nothing = {"retired": False, "at_least": False, "waiting": 0, "calls": 0, "retrying": 0, "failed": 0}
    assert found == {
        "busy": {**nothing, "paused": None, "waiting": 15, "calls": 4, "retrying": 1, "failed": 2},
        "idle": {**nothing, "paused": "a test", "oldest_seconds": 0},
    }


def test_counts_end_before_they_cost_much(ready: World, client: FlaskClient) -> None:
    full, _, exact = _register(ready, "full", "failing", "exact")
    _oblige(ready, full, _MANY)
    _oblige(ready, exact, 3)
    _add_runs(ready, "failing", "failed", _MANY)
    _add_runs(ready, "exact", "retrying", 3)
    found = _stats(client)
    assert (found["full"]["waiting"], found["full"]["at_least"]) == (3 * COUNTED, True)
    assert (found["failing"]["failed"], found["failing"]["at_least"]) == (COUNTED, True)
    assert (found["exact"]["waiting"], found["exact"]["retrying"], found["exact"]["at_least"]) == (9, 3, False)
    ready.sql("ANALYZE")
    assert _looked_at(ready, task_status._ALL) <= COUNTED


def test_a_task_with_nothing_open_does_not_read_what_others_have(ready: World, client: FlaskClient) -> None:
    full, _ = _register(ready, "full", "idle")
    _oblige(ready, full, _MANY)
    ready.sql("ANALYZE")
    claim = {"task": "idle", "owner": "o", "token": "t", "messages": 100}
    assert _looked_at(ready, chunks._CLAIM, claim) < 10
    assert _looked_at(ready, runs._WAITING, {"names": ["full", "idle"], "most": 8}) <= 16


def _looked_at(world: World, statement: str, values: dict[str, Any] | None = None) -> float:
    """The most rows that a step of the statement's plan has looked at, each time."""
    with psycopg2.connect(world.variables["DATABASE_URL"]) as session, session.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
        return max(_rows(cursor.fetchall()[0][0][0]["Plan"]))


def _rows(plan: dict[str, Any]) -> Iterator[float]:
    yield plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    for part in plan.get("Plans", ()):
        yield from _rows(part)


def test_readiness_shows_why_a_task_does_not_run(ready: World, client: FlaskClient) -> None:
    def shown() -> dict[str, Any]:
        tasks = client.get("/health/ready").get_json()["tasks"]
        assert all(task["ok"] is (task["reason"] is None) for task in tasks.values())
        return {name: task["reason"] for name, task in tasks.items()}

    assert shown() == {}
    _register(ready, "mail", "book")
    nobody = "no running worker has its code"
    assert shown() == {"book": nobody, "mail": nobody}
    _beat("pod-1", "book", "gone")
    _beat("pod-2", "mail", failure="redis: it hangs")
    assert shown() == {"book": None, "mail": "its workers cannot run it: pod-2: redis: it hangs"}
    _beat("pod-1", "book", "mail")
    ready.sql("INSERT INTO paused_task (name, reason) VALUES ('book', 'a test')")
    assert shown() == {"book": "paused: a test", "mail": None}
    ready.sql("UPDATE task_worker SET beat_at = now() - interval '1 minute' WHERE name = 'pod-1'")
    assert shown() == {"book": "paused: a test", "mail": "its workers cannot run it: pod-2: redis: it hangs"}
    ready.sql("DELETE FROM task_worker")
    assert shown()["mail"] == nobody


def _replay(client: FlaskClient, task: str = "new", **body: Any) -> dict[str, Any]:
    answer = client.post(f"/tasks/{task}/replay", json={**_DAY, **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.get_json())


def test_a_task_is_retired_once(ready: World, client: FlaskClient) -> None:
    _register(ready, "old")
    assert client.post("/tasks/old/retire").get_json() == {"retired": 1}
    assert ready.sql("SELECT retired_xact IS NOT NULL FROM task") == [(True,)]
    assert client.post("/tasks/old/retire").status_code == 404
    assert client.post("/tasks/none/retire").status_code == 404


def test_a_task_that_cannot_be_retired_is_a_problem(
    ready: World, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(ready, "old")
    monkeypatch.setattr(connection, "_ATTEMPTS", 2)
    with psycopg2.connect(ready.variables["DATABASE_URL"]) as storing, storing.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(hashtext('task'))")
        answer = client.post("/tasks/old/retire")
        storing.rollback()
    assert (answer.status_code, answer.get_json()["title"]) == (503, "The task is not retired")
    assert client.post("/tasks/old/retire").get_json() == {"retired": 1}


def test_a_replay_goes_on_where_a_request_has_ended(
    ready: World, client: FlaskClient, rows: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(ready, "new")
    assert _replay(client, dry_run=True) == {"messages": 25, "until": "2026-01-02T00:00:00+00:00", "done": True}
    monkeypatch.setattr(replays, "_STEP", 7)
    monkeypatch.setattr(views, "_REPLAY_SECONDS", 0.0)
    answers = [_replay(client, dry_run=True)]
    while not answers[-1]["done"]:
        answers.append(_replay(client, **{"from": answers[-1]["until"]}))
    assert len(answers) > 4
    assert sum(answer["messages"] for answer in answers) == 25
    # The first did nothing but count, and is made up for.
    assert ready.sql("SELECT sum(messages) FROM chunk") == [(25 - answers[0]["messages"],)]
    assert _replay(client)["messages"] == answers[0]["messages"]
    assert ready.sql("SELECT count(DISTINCT (topic, stored_at)), count(*), sum(messages) FROM chunk") == [(10, 10, 25)]


def test_what_was_replayed_is_not_replayed_again_but_if_wanted(
    ready: World, client: FlaskClient, rows: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(ready, "new")
    monkeypatch.setattr(replays, "_STEP", 3)
    assert [_replay(client)["messages"] for _ in range(2)] == [25, 0]
    assert ready.sql("SELECT count(*) FROM replay") == [(1,)], "steps that follow each other are one row"
    assert _replay(client, again=True)["messages"] == 25


def test_two_replays_at_once_do_not_both_oblige(ready: World, client: FlaskClient, rows: list[str]) -> None:
    _register(ready, "new")
    with (
        ThreadPoolExecutor(1) as other,
        psycopg2.connect(ready.variables["DATABASE_URL"]) as first,
        first.cursor() as cursor,
    ):
        cursor.execute(replays._LOCK, ("new",))
        cursor.execute("INSERT INTO replay VALUES ('new', '2026-01-01Z', '2026-01-01 02:00Z')")
        second = other.submit(_replay, client)
        wait_until(lambda: ready.sql(_NONE_LOCKED_OUT) != [(0,)], "it waits for the first")
        first.commit()
        assert second.result()["messages"] == 15


def test_a_replay_needs_a_task_and_a_time(client: FlaskClient) -> None:
    assert client.post("/tasks/none/replay", json=_DAY).status_code == 404
    for body in ({}, {"from": 5, "to": 6}, {**_DAY, "untill": 1}, {**_DAY, "to": None}, {**_DAY, "from": "today"}):
        assert client.post("/tasks/none/replay", json=body).status_code == 400, body
