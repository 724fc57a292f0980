"""Calls of the users' tasks, stored as runs that wait; each once, by its id."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from tasks.store.connection import database

# In the order of their ids, so that transactions that add the same calls wait for each other, and none for both.
_INSERT = """
    INSERT INTO run (task, message_id, stored_at, state, attempts, payload, headers, due_at, expires_at)
    SELECT task, id, now(), 'waiting', 0, payload, headers, coalesce(eta, now()), expires
    FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[])
        AS call (id, task, payload, headers, eta, expires)
    ORDER BY id ON CONFLICT (message_id) WHERE topic IS NULL DO NOTHING RETURNING task
"""
_STATE = ("task", "state", "attempts", "due_at", "expires_at", "changed_at", "error", "result")
_FIND = f"SELECT id, {', '.join(_STATE)} FROM run WHERE message_id = %s AND topic IS NULL"


class Call(NamedTuple):
    """A call: a task, its payload and the headers of its record, as JSON; not run before `eta`, nor from `expires`."""

    id: uuid.UUID
    task: str
    payload: str
    headers: str | None
    eta: datetime | None
    expires: datetime | None


def add(calls: Sequence[Call]) -> list[str]:
    """Store those whose id is new; returns the task of each. In the caller's transaction.

    Raises peewee.DatabaseError.
    """
    if not calls:
        return []
    columns = [list(column) for column in zip(*calls, strict=True)]
    columns[0] = list(map(str, columns[0]))
    return [row[0] for row in database.execute_sql(_INSERT, columns).fetchall()]


def find(call_id: uuid.UUID) -> dict[str, Any] | None:
    """A call with its state, and its result where that is kept; None if there is none. Raises peewee.DatabaseError."""
    row = database.execute_sql(_FIND, (str(call_id),)).fetchone()
    return None if row is None else dict(zip(("run", *_STATE), row, strict=True))
