"""What operators see of the users' tasks and do with them: what waits, pausing and resuming."""

from datetime import datetime
from typing import NamedTuple

from tasks.store.chunks import LOST_SECONDS, OF_TASK
from tasks.store.connection import database
from tasks.store.runs import OPEN

COUNTED = 10_000  # chunks, and runs in each state, of a task: a request never counts millions
# Ranges of indexes, as chunks.OF_TASK is, for the same reason.
_RUNS = f"""
    FROM run WHERE {{state}} AND run.task >= task.name AND (run.task, {{key}}) <= (task.name, '{{last}}')
    ORDER BY run.task, {{key}} LIMIT {COUNTED}
"""
_DUE = _RUNS.format(state=OPEN, key="due_at", last="infinity")
_FAILED = _RUNS.format(state="state = 'failed'", key="run.id", last=(1 << 63) - 1)
_ALL = f"""
    SELECT name, topic, patterns, registered_at, retired_at IS NOT NULL, paused_task.reason,
        coalesce(open.messages, 0)::bigint, open.oldest,
        coalesce(greatest(extract(epoch FROM now() - open.oldest), 0), 0)::float,
        due.calls, due.retrying, failed.runs,
        greatest(due.calls + due.retrying, failed.runs, open.chunks) >= {COUNTED}
    FROM task LEFT JOIN paused_task USING (name), LATERAL (
        SELECT count(*) AS chunks, sum(messages) AS messages, min(stored_at) AS oldest FROM (
            SELECT messages, stored_at FROM chunk WHERE {OF_TASK}
            ORDER BY chunk.task, chunk.id LIMIT {COUNTED}
        ) AS first
    ) AS open, LATERAL (
        SELECT count(*) FILTER (WHERE state = 'waiting') AS calls,
            count(*) FILTER (WHERE state = 'retrying') AS retrying
        FROM (SELECT state {_DUE}) AS first
    ) AS due, LATERAL (SELECT count(*) AS runs FROM (SELECT {_FAILED}) AS first) AS failed
    WHERE retired_at IS NULL OR open.chunks > 0
    ORDER BY name, task.id
"""
_NAMES = f"""
    SELECT DISTINCT name FROM task WHERE retired_at IS NULL OR EXISTS (SELECT FROM chunk WHERE {OF_TASK}) ORDER BY name
"""
# By name: a task whose patterns changed has several rows.
_WAITING = """
    SELECT name, bool_or(paused_task.reason IS NOT NULL), coalesce(sum(chunks.messages), 0)::bigint,
        coalesce(greatest(extract(epoch FROM now() - min(chunks.oldest)), 0), 0)::float
    FROM task LEFT JOIN paused_task USING (name) LEFT JOIN (
        SELECT task, sum(messages) AS messages, min(stored_at) AS oldest FROM chunk GROUP BY task
    ) AS chunks ON chunks.task = task.id
    WHERE retired_at IS NULL OR chunks.messages > 0
    GROUP BY name
"""
_HEALTH = f"""
    SELECT task.name, paused_task.reason, count(worker.name),
        count(worker.name) FILTER (WHERE worker.failure IS NULL), min(worker.name || ': ' || worker.failure)
    FROM task LEFT JOIN paused_task ON paused_task.name = task.name LEFT JOIN task_worker AS worker
        ON task.name = ANY (worker.tasks) AND worker.beat_at > now() - interval '{LOST_SECONDS} seconds'
    WHERE retired_at IS NULL GROUP BY task.name, paused_task.reason ORDER BY task.name
"""
_PAUSE = "INSERT INTO paused_task (name, reason, limit_percent) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
_RESUME = "DELETE FROM paused_task WHERE name = %s"


class TaskStatus(NamedTuple):
    """A registered task. `waiting` are messages that it has still to run for, the oldest stored at `oldest`; and calls.

    With `at_least` a count has ended at COUNTED chunks or runs, and there may be more.
    """

    name: str
    topic: str | None
    patterns: list[str] | None
    registered_at: datetime
    retired: bool
    paused: str | None  # why
    waiting: int
    oldest: datetime | None
    oldest_seconds: float
    calls: int
    retrying: int
    failed: int
    at_least: bool


class Waiting(NamedTuple):
    """What waits for a task: `messages`, the oldest of which was stored `seconds` ago."""

    name: str
    paused: bool
    messages: int
    seconds: float


def all_tasks() -> list[TaskStatus]:
    """Every task that is registered, or that still has something to run. Raises peewee.DatabaseError.

    The work is bounded, whatever is in the tables.
    """
    return list(map(TaskStatus._make, database.execute_sql(_ALL).fetchall()))


def names() -> list[str]:
    """The names of `all_tasks`, without counting anything. Raises peewee.DatabaseError."""
    return [row[0] for row in database.execute_sql(_NAMES).fetchall()]


def waiting() -> list[Waiting]:
    """What waits for each task, without its runs, of which there may be many. Raises peewee.DatabaseError."""
    return list(map(Waiting._make, database.execute_sql(_WAITING).fetchall()))


def health() -> dict[str, str | None]:
    """Why each registered task does not run, by its name; None if nothing prevents it. Raises peewee.DatabaseError."""
    rows = database.execute_sql(_HEALTH).fetchall()
    return {name: _hindrance(*found) for name, *found in rows}


def _hindrance(paused: str | None, workers: int, able: int, failure: str | None) -> str | None:
    if paused is not None:
        return f"paused: {paused}"
    if not workers:
        return "no running worker has its code"
    return None if able else f"its workers cannot run it: {failure}"


def pause(name: str, reason: str, limit_percent: int | None = None) -> bool:
    """Let a task run nothing until it is resumed; False if it is paused already. Raises peewee.DatabaseError."""
    return bool(database.execute_sql(_PAUSE, (name, reason, limit_percent)).rowcount)


def resume(name: str) -> bool:
    """Let a paused task run again; False if it was not paused. Raises peewee.DatabaseError."""
    return bool(database.execute_sql(_RESUME, (name,)).rowcount)
