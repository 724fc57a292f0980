"""Reading `message` in an order that nothing can be added to behind the reader: the order of transactions.

`stored_at` is when a transaction began, and transactions end in another order than they begin: who remembers the
newest time it has seen misses what commits later with an earlier one. Each row therefore bears its transaction's
number, and only rows below the oldest transaction that still runs are shown (`pg_snapshot_xmin`): all of those
have ended, so no row can appear among them any more.
"""

import uuid
from typing import Any, NamedTuple

from tasks.database import database, rows_within
from tasks.errors import NotReady
from tasks.reading import NAMES

_MOST_BYTES = 4_000_000
_COLUMNS = ", ".join(f'"{name}"' for name in NAMES)
# ORDER BY names its table: the column of the answer that is called xact is a text, and "1000" comes before "999".
_AFTER = f"""
    SELECT xact::text, {_COLUMNS} FROM message
    WHERE (xact, id) > (%s::xid8, %s) AND xact < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY message.xact, message.id LIMIT %s
"""
# Whether a row is of a transaction yet to come: then it was restored from another server, see schema.renumber.
_NOW = """
    SELECT last.xact::text, last.id,
        EXISTS (SELECT FROM message WHERE xact >= pg_snapshot_xmax(pg_current_snapshot())),
        pg_snapshot_xmax(pg_current_snapshot())::text
    FROM (SELECT) one LEFT JOIN LATERAL (
        SELECT xact, id FROM message WHERE xact < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY message.xact DESC, message.id DESC LIMIT 1
    ) last ON true
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
    """The position of the last message that is shown: all after it are new. Raises peewee.DatabaseError, NotReady.

    Not the oldest transaction that runs: after a crash PostgreSQL may give its number to another.
    """
    xact, last, restored, _ = database.execute_sql(_NOW).fetchone()
    if restored:
        raise NotReady("messages bear numbers of transactions that are yet to come: they were restored; run init")
    return Position(0, uuid.UUID(int=0)) if xact is None else Position(int(xact), uuid.UUID(str(last)))


def is_ahead(position: Position) -> bool:
    """Whether no message can have this position yet, so that it is of another database."""
    return position.xact >= int(database.execute_sql(_NOW).fetchone()[3])


def after(position: Position, limit: int) -> list[tuple[Position, dict[str, Any]]]:
    """Up to `limit` messages after `position`, in order, each with its own; fewer when they are large.

    Raises peewee.DatabaseError.
    """
    rows, _ = rows_within(_AFTER, (str(position.xact), position.id, limit), _MOST_BYTES)
    return [(Position(int(row[0]), uuid.UUID(str(row[1]))), dict(zip(NAMES, row[1:], strict=True))) for row in rows]
