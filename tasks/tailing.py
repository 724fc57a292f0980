"""Reading `message` in an order that nothing can be added to behind the reader: the order of transactions.

`stored_at` is when a transaction began, and transactions end in another order than they begin: who remembers the
newest time it has seen misses what commits later with an earlier one. Each row therefore bears its transaction's
number, and only rows below the oldest transaction that still runs are shown (`pg_snapshot_xmin`): all of those
have ended, so no row can appear among them any more.
"""

import uuid
from typing import Any, NamedTuple

from tasks.database import database

NAMES = ("id", "type", "key", "topic", "partition", "offset", "produced_at", "stored_at", "headers", "payload")
_COLUMNS = ", ".join(f'"{name}"' for name in NAMES)
_AFTER = f"""
    SELECT xact::text, {_COLUMNS} FROM message
    WHERE (xact, id) > (%s::xid8, %s) AND xact < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY xact, id LIMIT %s
"""


class Position(NamedTuple):
    """A place in the order; what comes after it is new."""

    xact: int
    id: uuid.UUID

    def __str__(self) -> str:
        return f"{self.xact}-{self.id}"


def parse(text: str) -> Position:
    """The position that `str` gave. Raises ValueError."""
    xact, _, message_id = text.partition("-")
    if not xact.isascii() or not xact.isdigit() or int(xact) >= 1 << 63:
        raise ValueError("it is the id of no event")
    return Position(int(xact), uuid.UUID(message_id))


def now() -> Position:
    """The position after which come all messages that are not stored yet. Raises peewee.DatabaseError."""
    row = database.execute_sql("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchone()
    return Position(int(row[0]), uuid.UUID(int=0))


def after(position: Position, limit: int) -> list[tuple[Position, dict[str, Any]]]:
    """Up to `limit` messages after `position`, in order, each with its own. Raises peewee.DatabaseError."""
    rows = database.execute_sql(_AFTER, (str(position.xact), position.id, limit)).fetchall()
    return [(Position(int(row[0]), uuid.UUID(str(row[1]))), dict(zip(NAMES, row[1:], strict=True))) for row in rows]
