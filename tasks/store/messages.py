"""Reads `message`: one by its id, and pages of a filter, newest first."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from peewee import SQL, ModelSelect, Tuple

from tasks.store import payload_index
from tasks.store.connection import database
from tasks.store.models import COLUMNS, Message, StoredMessage
from tasks.store.rows import Keyset, narrowed, rows_within

_PAGE_BYTES = 8_000_000
_SMALL = 50  # read at once whatever their size, because without a cursor PostgreSQL can use parallel workers
_FEW = 10_000  # up to this many matches, sorting is faster than scanning from the newest message
# The planner expects a materialized query to be read whole, so it uses the index; it is executed only as far as needed.
_HAS_FEW = """
    WITH matches AS MATERIALIZED (SELECT 1 FROM message WHERE payload @> %s::jsonb)
    SELECT count(*) <= %s FROM (SELECT 1 FROM matches LIMIT %s) few
"""


@dataclass(frozen=True)
class Filter:
    """Which messages to read; None means any. `since` and `until` bound stored_at, the latter exclusive."""

    type: str | None = None
    key: str | None = None
    topic: str | None = None
    partition: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    contains: str | None = None  # JSON that the payload contains


class Page(NamedTuple):
    """Messages, and the keyset after which the next page starts; None on the last page."""

    messages: list[StoredMessage]
    next: Keyset | None


def find(message_id: uuid.UUID, topic: str | None = None) -> StoredMessage | None:
    """The message with this id, or None while it is not stored; without a topic, the newest of all topics.

    Raises peewee.DatabaseError.
    """
    query = _matching(Filter(topic=topic)).where(Message.id == message_id).order_by(Message.stored_at.desc()).limit(1)
    row = database.execute_sql(*query.sql()).fetchone()
    return None if row is None else StoredMessage._make(row)


def page(query: Filter, after: Keyset | None, limit: int, most_bytes: int = _PAGE_BYTES) -> Page:
    """Up to `limit` messages, newest first, older than `after`; fewer if their text exceeds `most_bytes`.

    Raises peewee.DatabaseError.
    """
    statement, values = _select(query, after, limit).sql()
    if limit <= _SMALL:
        rows, cut = database.execute_sql(statement, values).fetchall(), False
    else:
        rows, cut = rows_within(statement, values, most_bytes)
    messages = [StoredMessage._make(row) for row in rows]
    last = messages[-1] if messages and (cut or len(rows) == limit) else None
    return Page(messages, None if last is None else Keyset(last.stored_at, last.id))


def _select(query: Filter, after: Keyset | None, limit: int) -> "ModelSelect[Message]":
    select = _matching(query)
    if query.contains is not None and payload_index.exists() and _has_few(query.contains):
        # The planner assumes that one message in a hundred contains any value, and would search from the newest
        # message on; for a rare value that reads the whole table.
        few = select.cte("few", materialized=True)
        select = Message.select(*(getattr(few.c, name) for name in COLUMNS)).from_(few).with_cte(few)
        time, key = few.c.stored_at, few.c.id
    else:
        time, key = Message.stored_at, Message.id
    if after is not None:
        select = select.where(Tuple(time, key) < Tuple(*after))
    return select.order_by(time.desc(), key.desc()).limit(limit)


def _has_few(contains: str) -> bool:
    return bool(database.execute_sql(_HAS_FEW, (contains, _FEW, _FEW + 1)).fetchone()[0])


def _matching(query: Filter) -> "ModelSelect[Message]":
    select = Message.select(*(getattr(Message, name) for name in COLUMNS))
    wanted = (
        (Message.type, query.type),
        (Message.key, query.key),
        (Message.topic, query.topic),
        (Message.partition, query.partition),
    )
    select = narrowed(select, wanted, Message.stored_at, query.since, query.until)
    if query.contains is not None:
        select = select.where(SQL("payload @> %s::jsonb", [query.contains]))
    return select
