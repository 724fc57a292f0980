"""Single runs: those that are not finished with their chunk, because they are retried or have failed, and calls.

A call is a run without a message. Its row is kept when it is done, so that its state and result can be asked for.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from tasks.store.chunks import FREE, NOT_PAUSED, OF_TASK, LeaseLost, Obligation
from tasks.store.connection import database

_INSERT = """
    INSERT INTO run (task, message_id, topic, "partition", "offset", stored_at, state, attempts, error, traceback,
        due_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, 1, %s, %s, now() + %s::interval)
"""
OPEN = "state IN ('waiting', 'retrying')"
_CLAIM = f"""
    UPDATE run SET owner = %(owner)s, kills = kills + (token IS NOT NULL)::integer, token = %(token)s
    WHERE id = ANY (ARRAY(
        SELECT id FROM run WHERE task = %(task)s AND {OPEN} AND due_at <= now() AND {NOT_PAUSED} AND {{which}}
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING id, attempts, kills, message_id, topic, "partition", "offset", stored_at, payload, headers,
        expires_at <= now()
"""
_CLAIM_NEW = _CLAIM.format(which="token IS NULL ORDER BY due_at LIMIT %(most)s")
# Claimed by a process that ended, for which it may be the cause: so it is claimed alone.
_CLAIM_SUSPECT = _CLAIM.format(which=f"token IS NOT NULL AND {FREE} LIMIT 1")
_MESSAGE = """
    SELECT 0, id, type, key, topic, "partition", "offset", produced_at, stored_at, headers, payload FROM message
    WHERE stored_at = %s AND topic = %s AND "partition" = %s AND "offset" = %s AND id = %s
"""
_LOCK = "SELECT id FROM run WHERE id = %s AND token = %s FOR UPDATE"
_DELETE = "DELETE FROM run WHERE id = %s AND token = %s"
_CHANGE = """
    UPDATE run SET state = %s, attempts = attempts + 1, error = %s, traceback = %s, due_at = now() + %s::interval,
        changed_at = now(), owner = NULL, token = NULL, kills = 0
    WHERE id = %s AND token = %s
"""
_END_CALL = """
    UPDATE run SET state = %s, attempts = attempts + %s, error = %s, traceback = '', result = %s, due_at = NULL,
        changed_at = now(), owner = NULL, token = NULL, kills = 0
    WHERE id = %s AND token = %s
"""
_RELEASE = "UPDATE run SET owner = NULL, token = NULL, kills = 0 WHERE token = %s"
_ABANDON = "UPDATE run SET owner = NULL WHERE token = %s"
_WAITING = f"""
    SELECT wanted.name, count(*) FROM unnest(%(names)s::text[]) AS wanted (name), LATERAL (
        SELECT FROM (
            (
                SELECT FROM task, LATERAL (
                    SELECT FROM chunk WHERE {OF_TASK} AND {FREE} ORDER BY chunk.task, chunk.id LIMIT %(most)s
                ) AS free WHERE task.name = wanted.name
            ) UNION ALL (
                SELECT FROM run WHERE run.task = wanted.name AND {OPEN} AND due_at <= now() AND {FREE}
                ORDER BY due_at LIMIT %(most)s
            )
        ) AS open LIMIT %(most)s
    ) AS found
    WHERE wanted.name NOT IN (SELECT name FROM paused_task) GROUP BY wanted.name
"""
_BEAT = """
    INSERT INTO task_worker (name, beat_at, tasks, failure) VALUES (%s, now(), %s, %s)
    ON CONFLICT (name) DO UPDATE SET beat_at = now(), tasks = excluded.tasks, failure = excluded.failure
"""
_LEAVE = "DELETE FROM task_worker WHERE name = %s OR beat_at < now() - interval '1 hour'"
_OLDEST = "SELECT min(stored_at) FROM run WHERE state = 'retrying' AND topic IS NOT NULL"


class Failure(NamedTuple):
    """Why a run failed, and after how many seconds it is retried; None: it is not."""

    error: str
    traceback: str
    retry_in: float | None

    @property
    def state(self) -> str:
        """The state of its row."""
        return "failed" if self.retry_in is None else "retrying"

    def due(self) -> timedelta | None:
        """When it is retried, from now."""
        return None if self.retry_in is None else timedelta(seconds=self.retry_in)


class Result(NamedTuple):
    """What a call has returned: the JSON that is kept, or why it is not."""

    json: str | None
    fault: str = ""


class Run(NamedTuple):
    """A claimed run. `kills` counts the processes that ended while they ran it.

    A call has no place, and has a payload, as JSON.
    """

    id: int
    attempts: int
    kills: int
    message_id: Any
    topic: str | None
    partition: int | None
    offset: int | None
    stored_at: Any
    payload: str | None
    headers: str | None
    expired: bool | None

    @property
    def is_call(self) -> bool:
        """Whether it was called, and not made for a message."""
        return self.topic is None


def add(task: str, failed: Sequence[tuple[Obligation, Failure]]) -> None:
    """Record first attempts that failed, in the transaction that ends their part of the chunk."""
    for message, failure in failed:
        place = (message.topic, message.partition, message.offset, message.stored_at)
        values = (task, message.id, *place, failure.state, failure.error, failure.traceback, failure.due())
        database.execute_sql(_INSERT, values)


def claim(task: str, owner: str, token: str, most: int) -> list[Run]:
    """Claim the runs of a task that are due for the longest time; or one alone during which a process ended.

    Raises peewee.DatabaseError.
    """
    values = {"task": task, "owner": owner, "token": token, "most": most}
    suspects = database.execute_sql(_CLAIM_SUSPECT, values).fetchall()
    return list(map(Run._make, suspects or database.execute_sql(_CLAIM_NEW, values).fetchall()))


def message(run: Run) -> Obligation | None:
    """The message of a run; None if it was deleted. Raises peewee.DatabaseError."""
    place = (run.stored_at, run.topic, run.partition, run.offset, run.message_id)
    row = database.execute_sql(_MESSAGE, place).fetchone()
    return None if row is None else Obligation._make(row)


def lock(run: Run, token: str) -> None:
    """Hold the run's row to the end of the transaction. Raises LeaseLost."""
    if database.execute_sql(_LOCK, (run.id, token)).fetchone() is None:
        raise LeaseLost


def finish(run: Run, token: str, failure: Failure | None, result: Result) -> None:
    """Delete a run that succeeded, keep the result of a call, or why it failed. Raises LeaseLost."""
    if failure is None and run.is_call:
        changed = database.execute_sql(_END_CALL, ("done", 1, result.fault, result.json, run.id, token))
    elif failure is None:
        changed = database.execute_sql(_DELETE, (run.id, token))
    else:
        values = (failure.state, failure.error, failure.traceback, failure.due(), run.id, token)
        changed = database.execute_sql(_CHANGE, values)
    if not changed.rowcount:
        raise LeaseLost


def expire(run: Run, token: str) -> None:
    """Keep a call that is not run any more. Raises LeaseLost."""
    if not database.execute_sql(_END_CALL, ("expired", 0, "", None, run.id, token)).rowcount:
        raise LeaseLost


def release(token: str) -> None:
    """Let others claim the runs of this token."""
    database.execute_sql(_RELEASE, (token,))


def abandon(token: str) -> None:
    """The same, if the process that claimed them ended, for which one of them may be the cause."""
    database.execute_sql(_ABANDON, (token,))


def waiting(names: Sequence[str], most: int) -> dict[str, int]:
    """How many chunks and runs of each task nobody has claimed, up to `most`; only tasks that have some.

    Raises peewee.DatabaseError.
    """
    return dict(database.execute_sql(_WAITING, {"names": list(names), "most": most}).fetchall())


def beat(owner: str, tasks: Sequence[str] = (), failure: str | None = None) -> None:
    """Keep what the processes of this parent have claimed; tell which tasks it runs, or why it cannot.

    Raises peewee.DatabaseError.
    """
    database.execute_sql(_BEAT, (owner, list(tasks), failure))


def leave(owner: str) -> None:
    """Free what the processes of this parent have claimed. Raises peewee.DatabaseError."""
    database.execute_sql(_LEAVE, (owner,))


def oldest() -> Any:
    """When the oldest message with a run to be retried was stored; None if there is none."""
    return database.execute_sql(_OLDEST).fetchone()[0]
