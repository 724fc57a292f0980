"""What a users' task does to its obligations, run in the test itself on real tables."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from tasks import Message, Reject, database
from tasks.declaration import Options, Task
from tasks.errors import ConfigurationError
from tasks.message import Record
from tasks.store import batches, chunks, replays, runs, task_registry
from tasks.store.chunks import LeaseLost
from tasks.worker.execution import Execution
from tasks.worker.outcomes import Outcomes
from tests.records import store_all
from tests.world import World

_calls: Counter[int | None] = Counter()  # by offset


@pytest.fixture(autouse=True)
def _prepared(task_process: World) -> None:
    _calls.clear()
    task_process.sql('CREATE TABLE effect ("offset" bigint UNIQUE DEFERRABLE INITIALLY DEFERRED)')


def _task(function: Callable[[Any], None], **options: Any) -> Task:
    declared = Task("t", function, Options(on="*", **{"retry_backoff": False, "max_retries": 0, **options}))
    task_registry.register([declared])
    return declared


def _store(*numbers: int) -> None:
    """A message at each of these offsets, stored in one batch."""
    store_all(batches, [Record("topic", 0, n, 1, None, orjson.dumps({"type": "a", "n": n}), ()) for n in numbers])


def _run(task: Task, token: str = "token") -> bool:
    runs.beat("owner")
    return Execution(task, "owner", token, Outcomes(100)).run()


def _effects(world: World) -> list[int]:
    return [offset for (offset,) in world.sql('SELECT "offset" FROM effect ORDER BY 1')]


def _failures(world: World) -> dict[int, str]:
    return dict(world.sql('SELECT "offset", error FROM run'))


def _insert(message: Message) -> None:
    _calls[message.offset] += 1
    database.execute_sql("INSERT INTO effect VALUES (%s)", (message.offset,))


def test_each_function_is_called_twice_at_most_when_one_fails(tables: World) -> None:
    def function(message: Message) -> None:
        _insert(message)
        if message.offset == 7:
            raise ValueError("seven")

    task = _task(function, transaction=True)
    _store(*range(20))
    _run(task)
    assert _effects(tables) == [n for n in range(20) if n != 7]
    assert _failures(tables) == {7: "ValueError: seven"}
    assert max(_calls.values()) == 2
    assert tables.sql("SELECT count(*) FROM chunk") == [(0,)]


def test_no_function_is_called_a_third_time_when_time_is_over_meanwhile(tables: World) -> None:
    def function(message: Message) -> None:
        _insert(message)
        end = time.monotonic() + 0.15
        while time.monotonic() < end:
            pass
        if message.offset == 5:
            raise ValueError("five")

    task = _task(function, transaction=True)
    _store(*range(8))
    while _run(task):
        pass
    assert _effects(tables) == [0, 1, 2, 3, 4, 6, 7]
    assert max(_calls.values()) == 2


def test_a_deferred_constraint_blames_the_one_that_violates_it(tables: World) -> None:
    def function(message: Message) -> None:
        database.execute_sql("INSERT INTO effect VALUES (%s)", (3 if message.offset == 5 else message.offset,))

    task = _task(function, transaction=True)
    _store(*range(8))
    _run(task)
    assert _effects(tables) == [0, 1, 2, 3, 4, 6, 7]
    assert list(_failures(tables)) == [5]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("COMMIT", "must not use COMMIT"),
        ("rollback", "must not use ROLLBACK"),
        ("BEGIN", "must not use BEGIN"),
        ("SELECT 1; COMMIT", "it committed the transaction"),
        ("SELECT 1; ROLLBACK", "it rolled back the transaction"),
    ],
)
def test_a_function_that_ends_its_transaction_hurts_only_itself(tables: World, statement: str, reason: str) -> None:
    def function(message: Message) -> None:
        if message.offset == 5:
            database.execute_sql(statement)
        database.execute_sql("SAVEPOINT s")
        database.execute_sql("ROLLBACK TO SAVEPOINT s")
        _insert(message)

    task = _task(function, transaction=True)
    _store(*range(8))
    while _run(task):
        pass
    assert set(_effects(tables)) - {5} == {0, 1, 2, 3, 4, 6, 7}
    assert list(_failures(tables)) == [5]
    assert reason in _failures(tables)[5]
    assert tables.sql("SELECT count(*) FROM chunk") == [(0,)]


def test_a_function_that_goes_on_after_a_failed_statement_hurts_only_itself(tables: World) -> None:
    def function(message: Message) -> None:
        _insert(message)
        if message.offset == 2:
            with contextlib.suppress(Exception):
                database.execute_sql("SELECT 1 / 0")

    task = _task(function, transaction=True)
    _store(*range(4))
    _run(task)
    assert _effects(tables) == [0, 1, 3]
    assert "a statement failed" in _failures(tables)[2]


def test_a_transaction_that_was_left_open_is_rolled_back(tables: World) -> None:
    def function(message: Message) -> None:
        if message.offset == 2:
            database.execute_sql("BEGIN")
        _insert(message)

    task = _task(function)
    _store(*range(4))
    _run(task)
    assert _effects(tables) == [0, 1, 3]
    assert "left a transaction open" in _failures(tables)[2]


def test_messages_of_a_batch_that_do_not_fit_fail_alone(tables: World) -> None:
    def function(messages: Sequence[Message]) -> None:
        for message in messages:
            _insert(message)

    task = _task(function, batch=4, transaction=True, model=dict[str, int | str])
    record = Record("topic", 0, 2, 1, None, b'{"type": "a", "n": []}', ())
    good = [Record("topic", 0, n, 1, None, b'{"type": "a", "n": 1}', ()) for n in (0, 1, 3, 4, 5)]
    store_all(batches, sorted([record, *good], key=lambda one: one.offset))
    _run(task)
    assert _effects(tables) == [0, 1, 3, 4, 5]
    assert list(_failures(tables)) == [2]


@pytest.mark.parametrize("transaction", [False, True])
@pytest.mark.parametrize("killer", [0, 3])
def test_what_has_ended_its_process_three_times_has_failed(tables: World, killer: int, transaction: bool) -> None:
    task = _task(_insert, transaction=transaction)
    _store(*range(4))
    tables.sql("UPDATE chunk SET claims = 1, suspect = %s, kills = 2", killer)
    if killer:
        tables.sql("UPDATE chunk SET first_offset = %s", killer)
    _run(task)
    assert killer not in _effects(tables)
    assert _failures(tables) == {killer: "it ended its process 3 times"}
    assert tables.sql("SELECT count(*) FROM chunk") == [(0,)]


def test_what_somebody_else_has_run_meanwhile_ends_here(tables: World) -> None:
    def function(message: Message) -> None:
        tables.sql("DELETE FROM chunk")

    task = _task(function)
    _store(0)
    with pytest.raises(LeaseLost):
        _run(task)


@pytest.mark.parametrize(
    "change",
    [
        lambda chunk: chunks.lock(chunk, "token"),
        lambda chunk: chunks.shrink(chunk, "token", 1, 1),
        lambda chunk: chunks.suspect(chunk, "token", 0),
        lambda chunk: chunks.divide(chunk, "token", 1, 1),
        lambda chunk: chunks.delete([chunk.id], "token"),
    ],
)
def test_nothing_can_be_changed_that_somebody_else_has_claimed(
    tables: World, change: Callable[[chunks.Chunk], object]
) -> None:
    _task(_insert)
    _store(0, 1)
    [chunk] = chunks.claim("t", "owner", "token", 1)
    [again] = chunks.claim("t", "other", "other", 1)  # the first owner sends no heartbeat
    assert (again.id, again.claims) == (chunk.id, 2)
    with pytest.raises(LeaseLost):
        change(chunk)
    assert tables.sql("SELECT token, messages FROM chunk") == [("other", 2)]


def test_what_takes_long_is_divided(tables: World) -> None:
    def function(message: Message) -> None:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass
        _insert(message)

    task = _task(function)
    _store(*range(16))
    assert _run(task)
    _run(task)
    assert tables.sql("SELECT count(*) > 1 FROM chunk") == [(True,)]
    assert tables.sql("SELECT sum(messages) FROM chunk") == [(16 - sum(_calls.values()),)]
    while _run(task):
        pass
    assert _effects(tables) == list(range(16))


def test_a_rejected_message_is_not_retried_and_a_failed_one_by_its_back_off(tables: World) -> None:
    def function(message: Message) -> None:
        _calls[message.offset] += 1
        if message.offset == 1:
            raise Reject("never")
        if message.offset == 2 and message.attempt < 3:
            raise ValueError("later")

    task = _task(function, max_retries=5)
    _store(*range(3))
    _run(task)
    assert _calls == {0: 1, 1: 1, 2: 3}
    assert _failures(tables) == {1: "Reject: never"}


def _replayed(begin: datetime, **options: bool) -> int:
    settings = {"again": False, "dry_run": False, **options}
    return sum(step.messages for step in replays.replay("t", begin, begin + timedelta(minutes=5), **settings))


def test_old_messages_are_replayed_once(tables: World) -> None:
    begin = datetime.now(UTC) - timedelta(minutes=1)
    _store(0, 1, 2)
    task = _task(_insert)
    _store(3, 4)
    assert _replayed(begin, dry_run=True) == 3
    assert _replayed(begin) == 3
    assert _replayed(begin) == 0
    _run(task)
    assert _effects(tables) == [0, 1, 2, 3, 4]
    tables.sql("DELETE FROM effect")
    assert _replayed(begin, again=True) == 5
    _run(task)
    assert _effects(tables) == [0, 1, 2, 3, 4]


def test_an_interrupted_replay_continues(tables: World) -> None:
    begin = datetime.now(UTC) - timedelta(minutes=1)
    _store(0, 1, 2)
    _task(_insert)
    stored_at = tables.sql("SELECT stored_at FROM message LIMIT 1")[0][0]
    tables.sql("INSERT INTO replay VALUES ('t', %s, %s)", begin, stored_at)
    assert _replayed(begin) == 3
    assert tables.sql("SELECT sum(messages) FROM chunk") == [(3,)]


def test_a_task_that_does_not_exist_is_not_replayed(tables: World) -> None:
    with pytest.raises(ConfigurationError, match="the task t is not registered; there are: none"):
        _replayed(datetime.now(UTC))
