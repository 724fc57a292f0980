"""What operators see of the users' tasks and do with them: what waits, pausing and resuming."""

from datetime import datetime
from typing import NamedTuple

from tasks.store.connection import database

_OPEN = """
    LEFT JOIN paused_task USING (name) LEFT JOIN (
        SELECT task, sum(messages) AS messages, min(stored_at) AS oldest FROM chunk GROUP BY task
    ) AS chunks ON chunks.task = task.id
    WHERE retired_at IS NULL OR chunks.messages > 0
"""
_ALL = f"""
    SELECT name, topic, patterns, registered_at, retired_at IS NOT NULL, paused_task.reason,
        coalesce(chunks.messages, 0)::bigint, chunks.oldest,
        coalesce(greatest(extract(epoch FROM now() - chunks.oldest), 0), 0)::float,
        (SELECT count(*) FROM run WHERE run.task = task.name AND state = 'retrying'),
        (SELECT count(*) FROM run WHERE run.task = task.name AND state = 'failed')
    FROM task {_OPEN} ORDER BY name, task.id
"""
# By name: a task whose patterns changed has several rows.
_WAITING = f"""
    SELECT name, bool_or(paused_task.reason IS NOT NULL), coalesce(sum(chunks.messages), 0)::bigint,
        coalesce(greatest(extract(epoch FROM now() - min(chunks.oldest)), 0), 0)::float
    FROM task {_OPEN} GROUP BY name
"""
_PAUSE = "INSERT INTO paused_task (name, reason, limit_percent) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
_RESUME = "DELETE FROM paused_task WHERE name = %s"


class TaskStatus(NamedTuple):
    """A registered task. `waiting` are messages that it has still to run for, the oldest stored at `oldest`."""

    name: str
    topic: str | None
    patterns: list[str] | None
    registered_at: datetime
    retired: bool
    paused: str | None  # why
    waiting: int
    oldest: datetime | None
    oldest_seconds: float
    retrying: int
    failed: int


class Waiting(NamedTuple):
    """What waits for a task: `messages`, the oldest of which was stored `seconds` ago."""

    name: str
    paused: bool
    messages: int
    seconds: float


def all_tasks() -> list[TaskStatus]:
    """Every task that is registered, or that still has something to run. Raises peewee.DatabaseError."""
    return list(map(TaskStatus._make, database.execute_sql(_ALL).fetchall()))


def waiting() -> list[Waiting]:
    """What waits for each task, without its runs, of which there may be many. Raises peewee.DatabaseError."""
    return list(map(Waiting._make, database.execute_sql(_WAITING).fetchall()))


def pause(name: str, reason: str, limit_percent: int | None = None) -> bool:
    """Let a task run nothing until it is resumed; False if it is paused already. Raises peewee.DatabaseError."""
    return bool(database.execute_sql(_PAUSE, (name, reason, limit_percent)).rowcount)


def resume(name: str) -> bool:
    """Let a paused task run again; False if it was not paused. Raises peewee.DatabaseError."""
    return bool(database.execute_sql(_RESUME, (name,)).rowcount)
