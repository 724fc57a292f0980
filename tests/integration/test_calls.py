"""Calls of the users' tasks on real tables: stored once, run when they are due, kept with their result."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks import Message, calls, database
from tasks.calls import Moments
from tasks.declaration import Options, Task
from tasks.message import Record
from tasks.store import batches, failed_runs, runs, task_registry
from tasks.store import calls as stored_calls
from tasks.store.calls import Call
from tasks.store.chunks import LeaseLost
from tasks.store.runs import Failure, Result, Run
from tasks.worker.execution import Execution
from tasks.worker.outcomes import Outcomes
from tests.records import span_of
from tests.world import World


@pytest.fixture(autouse=True)
def _prepared(task_process: World) -> None:
    task_process.sql("CREATE TABLE effect (call text)")


def _nothing(_: Message) -> None:
    pass


def _task(function: Callable[[Message], Any], **options: Any) -> Task:
    declared = Task("t", function, Options(**{"max_retries": 0, **options}))
    task_registry.register([declared])
    return declared


def _add(count: int = 1, **moments: Any) -> list[uuid.UUID]:
    ids = [uuid.uuid4() for _ in range(count)]
    stored_calls.add([Call(one, "t", f'{{"n": {n}}}', None, *Moments.of(**moments)) for n, one in enumerate(ids)])
    return ids


def _run(task: Task) -> None:
    runs.beat("owner")
    while Execution(task, "owner", "token", Outcomes(100)).run():
        pass


def _states(ids: list[uuid.UUID]) -> list[str]:
    return [found["state"] for found in map(stored_calls.find, ids) if found is not None]


def test_a_redelivered_or_repeated_call_is_stored_once(tables: World) -> None:
    first, second = uuid.uuid4(), uuid.uuid4()
    ids = (first, second, first)
    records = [Record("topic", 0, n, 1, None, b"1", calls.headers("t", one, Moments())) for n, one in enumerate(ids)]
    found = [calls.decode(record) for record in records]
    stored = batches.store_batch(span_of(records), records, [], [], calls=found)
    assert (stored.stored, stored.redelivered, stored.tasks) == (2, 1, ("t",))
    again = batches.store_batch(span_of(records), records, [], [], calls=found)
    assert (again.stored, again.redelivered, again.tasks) == (0, 3, ())
    assert tables.sql("SELECT count(*) FROM run") == [(2,)]
    assert tables.sql("SELECT count(*) FROM message") == [(0,)]


def test_a_function_receives_its_payload_and_its_result_is_kept(tables: World) -> None:
    received: list[Message] = []

    def function(message: Message) -> dict[str, Any]:
        received.append(message)
        return {"double": message.payload["n"] * 2}

    task = _task(function, store_result=True)
    ids = _add(3)
    _run(task)
    assert {str(one) for one in ids} == {message.id for message in received}
    assert (received[0].topic, received[0].offset, received[0].attempt) == (None, None, 1)
    assert [(found["state"], found["attempts"], found["result"]) for found in map(stored_calls.find, ids) if found] == [
        ("done", 1, f'{{"double":{2 * n}}}') for n in range(3)
    ]


@pytest.mark.parametrize(("result", "fault"), [("x" * 100_000, "it has 100002 bytes"), (object(), "not kept: ")])
def test_a_result_that_cannot_be_kept_changes_nothing_else(tables: World, result: Any, fault: str) -> None:
    task = _task(lambda _: result, store_result=True)
    [one] = _add()
    _run(task)
    found = stored_calls.find(one)
    assert found is not None and (found["state"], found["result"]) == ("done", None)
    assert fault in found["error"]


def test_a_call_waits_until_it_is_due_and_expires(tables: World) -> None:
    task = _task(_nothing)
    later, expired = _add(countdown=3600), _add(expires=-1)
    _run(task)
    assert _states(later + expired) == ["waiting", "expired"]
    assert runs.waiting(["t"], 9) == {}
    tables.sql("UPDATE run SET due_at = now() WHERE state = 'waiting'")
    assert runs.waiting(["t"], 9) == {"t": 1}
    _run(task)
    assert _states(later) == ["done"]


def test_a_call_that_fails_is_listed_and_retried(tables: World) -> None:
    broken = [True]

    def function(message: Message) -> None:
        if broken:
            raise ValueError("as its message says")

    task = _task(function)
    ids = _add(2)
    _run(task)
    assert _states(ids) == ["failed", "failed"]
    listed = failed_runs.page(failed_runs.RunSelection(), 10)
    assert [(row["topic"], row["error"]) for row in listed] == [(None, "ValueError: as its message says")] * 2
    broken.clear()
    assert failed_runs.retry(failed_runs.RunSelection(task="t")) == 2
    _run(task)
    assert _states(ids) == ["done", "done"]


def test_a_call_inside_a_transaction_is_part_of_it(tables: World) -> None:
    kept = uuid.uuid4()

    def function(message: Message) -> None:
        database.execute_sql("INSERT INTO effect VALUES (%s)", (message.id,))
        other.apply_async({"n": 1}, task_id=kept if message.payload["n"] else None, countdown=60)
        if not message.payload["n"]:
            raise ValueError("rolled back")

    other = Task("other", _nothing, Options())
    task = _task(function, transaction=True)
    rolled_back, done = _add(2)
    _run(task)
    assert _states([rolled_back, done]) == ["failed", "done"]
    assert tables.sql("SELECT call FROM effect") == [(str(done),)]
    assert [row[0] for row in tables.sql("SELECT message_id FROM run WHERE task = 'other'")] == [kept]


def test_ended_calls_are_deleted_by_age(tables: World) -> None:
    task = _task(_nothing)
    old, new = _add()[0], _add(countdown=60)[0]
    _run(task)
    tables.sql("UPDATE run SET changed_at = now() - interval '2 days'")
    assert sum(failed_runs.delete_ended_before(datetime.now(UTC) - timedelta(days=1))) == 1
    assert stored_calls.find(old) is None
    assert stored_calls.find(new) is not None


def test_a_call_during_which_a_process_ended_is_claimed_alone(tables: World) -> None:
    _task(_nothing)
    _add(5)
    runs.beat("owner")
    assert len(runs.claim("t", "owner", "first", 10)) == 5
    assert runs.claim("t", "owner", "second", 10) == []
    runs.abandon("first")
    [one] = runs.claim("t", "owner", "third", 10)
    assert one.kills == 1
    runs.release("third")
    assert [run.kills for run in runs.claim("t", "owner", "fourth", 10)] == [1]


@pytest.mark.parametrize(
    "change",
    [
        lambda run: runs.lock(run, "first"),
        lambda run: runs.finish(run, "first", None, Result(None)),
        lambda run: runs.finish(run, "first", Failure("error", "", None), Result(None)),
        lambda run: runs.expire(run, "first"),
    ],
)
def test_nothing_can_be_changed_that_somebody_else_has_claimed(tables: World, change: Callable[[Run], object]) -> None:
    _task(_nothing)
    _add()
    [run] = runs.claim("t", "owner", "first", 1)
    [again] = runs.claim("t", "other", "second", 1)  # the first owner sends no heartbeat
    assert (again.id, again.kills) == (run.id, 1)
    with pytest.raises(LeaseLost):
        change(run)
    runs.finish(again, "second", None, Result(None))
