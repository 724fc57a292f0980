"""Reads `message` in the order of transactions, in which no row can appear behind the reader.

`stored_at` is the time at which a transaction began, and transactions do not end in that order: a reader that
remembers the newest time misses a row that is committed later with an earlier time. So each row has the number of its
transaction, and only rows below the oldest running one (`pg_snapshot_xmin`) are shown: all of those have ended.
"""

import uuid
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

from tasks.errors import NotReady
from tasks.store import leaves
from tasks.store.connection import database
from tasks.store.leaves import Leaf
from tasks.store.message_rows import rows_within
from tasks.store.models import COLUMNS, StoredMessage


class Position(NamedTuple):
    """A position in the order; the rows after it are new."""

    xact: int
    id: uuid.UUID

    def __str__(self) -> str:
        return f"{self.xact}-{self.id}"


_MOST_BYTES = 4_000_000
_COLUMNS = ", ".join(f'"{name}"' for name in COLUMNS)
# ORDER BY names the table: the column xact of the result is text, in which "1000" comes before "999".
_AFTER = f"""
    SELECT xact::text, {_COLUMNS} FROM message
    WHERE (xact, id) > (%s::xid8, %s) AND xact < %s::xid8 AND stored_at >= %s AND stored_at < %s
    ORDER BY message.xact, message.id LIMIT %s
"""
_LAST = """
    SELECT xact::text, id FROM message
    WHERE (%s::xid8 IS NULL OR xact < %s::xid8) AND stored_at >= %s AND stored_at < %s
    ORDER BY message.xact DESC, message.id DESC LIMIT 1
"""
# Whether a row has the number of a future transaction: it was restored from another server (migrations.renumber).
_RESTORED = """
    SELECT EXISTS (
        SELECT FROM message WHERE xact >= pg_snapshot_xmax(pg_current_snapshot()) AND stored_at >= %s AND stored_at < %s
    )
"""
# The oldest running transaction; of one request, because it is another one for the next statement.
_RUNNING = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
_NEXT = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"
_CLOSED_AFTER = timedelta(hours=1)  # no transaction of a worker lasts that long, so nothing is added to an older leaf
_START = Position(0, uuid.UUID(int=0))
_closed: dict[tuple[str, str], Position] = {}  # by database and closed leaf: its last position


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
    running, last = _one(_RUNNING), _START
    for leaf in leaves.newest_first(None, None):
        if _one(_RESTORED, leaf.begin, leaf.end):
            raise NotReady(
                "messages have numbers of future transactions, because they were restored from another server; run init"
            )
        last = max(last, _last(leaf, running))
    return last


def is_ahead(position: Position) -> bool:
    """Whether no message can have this position yet, so it is from another database."""
    return position.xact >= int(_one(_NEXT))


def after(position: Position, limit: int) -> list[tuple[Position, StoredMessage]]:
    """Up to `limit` messages after `position`, in order, each with its position; fewer if they are large.

    Raises peewee.DatabaseError.
    """
    # At midnight transactions write to two leaves, in any order.
    running = _one(_RUNNING)
    found: list[tuple[Position, StoredMessage]] = []
    end: Position | None = None
    for leaf in leaves.newest_first(None, None):
        if leaf.end < datetime.now(UTC) - _CLOSED_AFTER and _last_of_closed(leaf) <= position:
            continue
        values = (str(position.xact), position.id, running, leaf.begin, leaf.end, limit)
        rows, cut = rows_within(_AFTER, values, _MOST_BYTES, "xact,")
        some = [(Position(int(row[0]), row[1]), StoredMessage._make(row[1:])) for row in rows]
        if cut and (end is None or some[-1][0] < end):
            end = some[-1][0]  # what follows in this leaf was not read
        found += some
    found.sort(key=itemgetter(0))
    return [one for one in found if end is None or one[0] <= end][:limit]


def _last_of_closed(leaf: Leaf) -> Position:
    known = str(database.database), leaf.name
    if known not in _closed:
        _closed[known] = _last(leaf, None)
    return _closed[known]


def _last(leaf: Leaf, running: str | None) -> Position:
    """The last position in a leaf, before that transaction if it is given."""
    row = database.execute_sql(_LAST, (running, running, leaf.begin, leaf.end)).fetchone()
    return _START if row is None else Position(int(row[0]), row[1])


def _one(query: str, *values: Any) -> Any:
    return database.execute_sql(query, values).fetchone()[0]
