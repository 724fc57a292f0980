"""Reads `message` in the order of transactions, in which no row can appear behind the reader.

`stored_at` is the time at which a transaction began, and transactions do not end in that order: a reader that
remembers the newest time misses a row that is committed later with an earlier time. So each row has the number of its
transaction, and only rows below the oldest running one (`pg_snapshot_xmin`) are shown: all of those have ended.
"""

import uuid
from typing import NamedTuple

from tasks.errors import NotReady
from tasks.store.connection import database
from tasks.store.models import COLUMNS, StoredMessage
from tasks.store.rows import rows_within

_MOST_BYTES = 4_000_000
_COLUMNS = ", ".join(f'"{name}"' for name in COLUMNS)
# ORDER BY names the table: the column xact of the result is text, in which "1000" comes before "999".
_AFTER = f"""
    SELECT xact::text, {_COLUMNS} FROM message
    WHERE (xact, id) > (%s::xid8, %s) AND xact < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY message.xact, message.id LIMIT %s
"""
# Whether a row has the number of a future transaction: it was restored from another server (migrations.renumber).
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
    """A position in the order; the rows after it are new."""

    xact: int
    id: uuid.UUID

    def __str__(self) -> str:
        return f"{self.xact}-{self.id}"


def parse(text: str) -> Position:
    """The position that `str` gave. Raises ValueError."""
    xact, _, message_id = text.partition("-")
    if not xact.isascii() or not xact.isdigit() or int(xact) >= 1 << 63:
        raise ValueError("it is not the id of an event")
    return Position(int(xact), uuid.UUID(message_id))


def now() -> Position:
    """The position of the last message that is shown. Raises peewee.DatabaseError, NotReady.

    Not that of the oldest running transaction: after a crash PostgreSQL may reuse its number.
    """
    xact, last, restored, _ = database.execute_sql(_NOW).fetchone()
    if restored:
        raise NotReady(
            "messages have numbers of future transactions, because they were restored from another server; run init"
        )
    return Position(0, uuid.UUID(int=0)) if xact is None else Position(int(xact), uuid.UUID(str(last)))


def is_ahead(position: Position) -> bool:
    """Whether no message can have this position yet, so it is from another database."""
    return position.xact >= int(database.execute_sql(_NOW).fetchone()[3])


def after(position: Position, limit: int) -> list[tuple[Position, StoredMessage]]:
    """Up to `limit` messages after `position`, in order, each with its position; fewer if they are large.

    Raises peewee.DatabaseError.
    """
    rows, _ = rows_within(_AFTER, (str(position.xact), position.id, limit), _MOST_BYTES)
    messages = [(int(row[0]), StoredMessage._make(row[1:])) for row in rows]
    return [(Position(xact, message.id), message) for xact, message in messages]
