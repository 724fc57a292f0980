"""However long PostgreSQL takes, and whatever ends the workers meanwhile, no good record becomes a dead letter."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psutil

from tests.clients import events
from tests.programs import Program
from tests.waiting import wait_until
from tests.world import World

_DEADLINE = "3"  # seconds that a worker has for a batch
_WAITING = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'backend-worker' AND wait_event = 'SyncRep'
"""


@contextmanager
def _locked(world: World) -> Iterator[None]:
    """The lock of CREATE INDEX."""
    with world.connect() as session, session.cursor() as cursor:
        cursor.execute("LOCK TABLE message IN SHARE MODE")
        yield


@contextmanager
def _without_its_standby(world: World) -> Iterator[None]:
    """A COMMIT waits for a standby that is away; no timeout of PostgreSQL's bounds that wait."""
    _standby(world, "'nobody'")
    try:
        yield
    finally:
        _standby(world, "''")


def _standby(world: World, names: str) -> None:
    world.admin(f"ALTER SYSTEM SET synchronous_standby_names = {names}")
    world.admin("SELECT pg_reload_conf()")


def _failed(pod: Program, times: int) -> bool:
    return len(pod.lines("batch.failed")) >= times


def _sessions(world: World) -> int:
    return len(world.sql("SELECT pid FROM pg_stat_activity WHERE datname = current_database()"))


def _all_are_messages(world: World, made: dict[str, bytes]) -> None:
    world.wait_for(len(made))
    world.holds_exactly(made)
    assert world.sql("SELECT count(*) FROM dead_letter") == [(0,)]
    world.all_committed()


def test_a_lock_is_waited_for(ready: World) -> None:
    made = events(1)
    with _locked(ready):
        pod = ready.consume(batch_deadline_seconds=_DEADLINE)
        ready.produce(list(made.values()))
        wait_until(lambda: _failed(pod, 10), "it has failed several times", 60)
        assert not [line for line in pod.lines("batch.failed") if "ended" in line["reason"]], "no worker was killed"
        assert _sessions(ready) < 12
    _all_are_messages(ready, made)


def test_workers_killed_in_a_lock_are_no_fault_of_the_records(ready: World) -> None:
    made = events(1)
    with _locked(ready):
        pod = ready.consume(workers="1")
        ready.produce(list(made.values()))
        for times in range(1, 5):
            wait_until(lambda: _waits(ready), "the worker waits for the lock")
            for child in _worker_processes(pod):
                child.send_signal(signal.SIGKILL)
            wait_until(partial(_failed, pod, times), "its parent says so")
    _all_are_messages(ready, made)


def _waits(world: World) -> bool:
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'backend-worker' AND wait_event_type = 'Lock'"
    return bool(world.sql(f"{query} AND datname = current_database()"))


def _worker_processes(pod: Program) -> list[psutil.Process]:
    children: list[psutil.Process] = pod.child("-m tasks").children()
    return children


def test_a_commit_without_an_answer_is_waited_for(ready: World) -> None:
    made = events(4)
    pod = ready.consume(batch_deadline_seconds=_DEADLINE, batch_records="1")
    with _without_its_standby(ready):
        ready.produce(list(made.values()), partition=0)
        wait_until(lambda: _failed(pod, 40), "every batch has failed several times", 120)
        assert _sessions(ready) < 16, "attempts leave no session each"
        assert ready.count() == 0
    _all_are_messages(ready, made)


def test_a_commit_whose_wait_is_cancelled_is_not_taken_for_stored(ready: World) -> None:
    made = events(4)
    pod = ready.consume(workers="1")
    with _without_its_standby(ready):
        ready.produce(list(made.values()), partition=0)
        [(waiting,)] = wait_until(lambda: ready.sql(_WAITING), "its COMMIT waits for the standby")
        ready.sql("SELECT pg_cancel_backend(%s)", waiting)
        wait_until(lambda: ready.count() == len(made), "it is visible")
        wait_until(lambda: ready.sql(_WAITING), "the next attempt waits for the standby, too")
        assert not pod.lines("batch.stored"), "no standby has it"
    _all_are_messages(ready, made)
    assert [(x["stored"], x["redelivered"]) for x in pod.lines("batch.stored")] == [(0, len(made))]
