"""Which tasks of the users exist: a row for each, written by `init`, read by the transactions that store messages.

Those hold a shared lock to their end, and `init` an exclusive one while it writes. So each task begins at one exact
transaction: it has an obligation for each message stored after that, whichever processes run or restart meanwhile.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tasks.declaration import Task
from tasks.errors import Unavailable
from tasks.store.connection import briefly, database

SHARED_LOCK = "pg_advisory_xact_lock_shared(hashtext('task'))"
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('task'))"
_CURRENT = "SELECT name, topic, patterns, aliases FROM task WHERE retired_at IS NULL"
# Its chunks keep the patterns that they were made by.
_RETIRE = """
    UPDATE task SET retired_at = now(), retired_xact = pg_current_xact_id() WHERE name = %s AND retired_at IS NULL
"""
_INSERT = "INSERT INTO task (name, topic, patterns, aliases) VALUES (%s, %s, %s, %s)"


class Registration(NamedTuple):
    """A task as it is registered: its name, the topic and the patterns of LIKE that choose its messages.

    `aliases` are the names that it had before.
    """

    name: str
    topic: str | None
    patterns: list[str] | None
    aliases: list[str]


def of(task: Task) -> Registration:
    """The registration that a declared task needs."""
    patterns = task.options.patterns()
    like_patterns = None if patterns is None else list(map(like, patterns))
    return Registration(task.name, task.options.topic, like_patterns, list(task.options.aliases))


def like(pattern: str) -> str:
    """A pattern of types, in which only * is special, as a pattern of LIKE."""
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


def missing(tasks: Sequence[Task]) -> list[Registration]:
    """What `register` would write: tasks that are new, or registered in another way or by another name.

    Raises peewee.DatabaseError.
    """
    current = {name: Registration(name, *rest) for name, *rest in database.execute_sql(_CURRENT).fetchall()}
    return [
        wanted
        for wanted in map(of, tasks)
        if current.get(wanted.name) != wanted or any(alias in current for alias in wanted.aliases)
    ]


def register(tasks: Sequence[Task]) -> list[Registration]:
    """Register what is missing; returns it. The other tasks that exist stay.

    Raises Unavailable if transactions that store messages leave no moment for it, and peewee.DatabaseError.
    """
    written: list[Registration] = []

    def write() -> None:
        database.execute_sql(_LOCK)
        written[:] = missing(tasks)
        for registration in written:
            for name in (registration.name, *registration.aliases):
                database.execute_sql(_RETIRE, (name,))
            database.execute_sql(_INSERT, registration)

    if missing(tasks) and not briefly(write):
        raise Unavailable("the tasks cannot be registered, because a transaction that stores messages does not end")
    return written


def retire(name: str) -> bool:
    """End a task at one exact transaction; False if there is none of that name. Raises Unavailable, as `register`."""
    ended: list[bool] = []

    def end() -> None:
        database.execute_sql(_LOCK)
        ended.append(bool(database.execute_sql(_RETIRE, (name,)).rowcount))

    if not briefly(end):
        raise Unavailable("the task cannot be retired, because a transaction that stores messages does not end")
    return ended[-1]


def names() -> Iterator[str]:
    """The names of the registered tasks. Raises peewee.DatabaseError."""
    rows: list[tuple[Any, ...]] = database.execute_sql(_CURRENT).fetchall()
    return (row[0] for row in rows)
