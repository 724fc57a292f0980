"""Reads `message`: one by its id, and pages of a filter, newest first.

A page looks at a limited number of messages, which may be too few to fill it, and then names where the next page goes
on: however rare a type is, and however many messages there are, a request takes no longer.
"""

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
_LOOKED_AT = 20_000  # messages for one page: 50 ms while PostgreSQL has them in memory
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
    """Messages, and the keyset after which the next page starts; None on the last page. Only the last is complete."""

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
    """Up to `limit` messages, newest first, older than `after`.

    Fewer if their text exceeds `most_bytes`, or if _LOOKED_AT messages have no more that match.
    Raises peewee.DatabaseError.
    """
    by_payload = query.contains is not None and payload_index.exists()
    looked_at = None if by_payload else _look_ahead(query, after)
    rows, cut = rows_within(*_select(query, after, looked_at, limit, by_payload).sql(), most_bytes)
    messages = [StoredMessage._make(row) for row in rows]
    if cut or len(rows) == limit:
        return Page(messages, Keyset(messages[-1].stored_at, messages[-1].id))
    return Page(messages, looked_at)


def _look_ahead(query: Filter, after: Keyset | None) -> Keyset | None:
    """The last of the messages that a page looks at; None if it can look at all that there are."""
    of_key, time = [(Message.key, query.key)], Message.stored_at  # what the index restricts
    select = narrowed(Message.select(time, Message.id), of_key, time, query.since, query.until)
    if after is not None:
        select = select.where(Tuple(time, Message.id) < Tuple(*after))
    newest_first = select.order_by(time.desc(), Message.id.desc())
    row = database.execute_sql(*newest_first.offset(_LOOKED_AT - 1).limit(1).sql()).fetchone()
    return None if row is None else Keyset(*row)


def _select(
    query: Filter, after: Keyset | None, looked_at: Keyset | None, limit: int, by_payload: bool
) -> "ModelSelect[Message]":
    select = _matching(query)
    if by_payload and _has_few(query.contains or ""):
        # The planner assumes that one message in a hundred contains any value, and would search from the newest
        # message on; for a rare value that reads the whole table.
        few = select.cte("few", materialized=True)
        select = Message.select(*(getattr(few.c, name) for name in COLUMNS)).from_(few).with_cte(few)
        time, key = few.c.stored_at, few.c.id
    else:
        time, key = Message.stored_at, Message.id
    if after is not None:
        select = select.where(Tuple(time, key) < Tuple(*after))
    if looked_at is not None:
        select = select.where(Tuple(time, key) >= Tuple(*looked_at))
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
