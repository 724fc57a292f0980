"""Reading `message`: one by its id, and pages of what matches a filter, newest first."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from peewee import SQL, ModelSelect, Tuple

from tasks import schema
from tasks.database import database, rows_within
from tasks.models import Message

Keyset: TypeAlias = tuple[datetime, uuid.UUID]
NAMES = ("id", "type", "key", "topic", "partition", "offset", "produced_at", "stored_at", "headers", "payload")
_PAGE_BYTES = 8_000_000
_SMALL = 50  # messages that may be read at once however large they are; only then PostgreSQL may use many processes
_FEW = 10_000  # messages that are sorted sooner than the newest ones are looked through for them
# A materialized query is planned to be read whole, so by the index, and read only as far as it is asked for.
_HAS_FEW = """
    WITH found AS MATERIALIZED (SELECT 1 FROM message WHERE payload @> %s::jsonb)
    SELECT count(*) <= %s FROM (SELECT 1 FROM found LIMIT %s) few
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
    """Messages by their columns, and where the next page begins; None on the last."""

    messages: list[dict[str, Any]]
    next: Keyset | None


def find(message_id: uuid.UUID, topic: str | None = None) -> dict[str, Any] | None:
    """The message with this id, if it is stored, by its columns; without a topic the newest of all topics.

    Raises peewee.DatabaseError.
    """
    query = Message.select().where(Message.id == message_id).order_by(Message.stored_at.desc())
    if topic is not None:
        query = query.where(Message.topic == topic)
    found: dict[str, Any] | None = query.dicts().first()
    return found


def page(wanted: Filter, after: Keyset | None, limit: int, most_bytes: int = _PAGE_BYTES) -> Page:
    """Up to `limit` messages, newest first, older than `after`; fewer when they hold `most_bytes`.

    Raises peewee.DatabaseError.
    """
    query, values = _query(wanted, after, limit).sql()
    if limit <= _SMALL:
        rows, cut = database.execute_sql(query, values).fetchall(), False
    else:
        rows, cut = rows_within(query, values, most_bytes)
    messages = [dict(zip(NAMES, row, strict=True)) for row in rows]
    last = messages[-1] if messages and (cut or len(rows) == limit) else None
    return Page(messages, None if last is None else (last["stored_at"], uuid.UUID(str(last["id"]))))


def _query(wanted: Filter, after: Keyset | None, limit: int) -> "ModelSelect[Message]":
    query = _matching(wanted)
    if wanted.contains is not None and schema.has_payload_index() and _has_few(wanted.contains):
        # The planner takes every value for one that a message in a hundred contains, and would look for it from
        # the newest message on; for what is rare it would read them all.
        found = query.cte("found", materialized=True)
        query = Message.select(*(getattr(found.c, name) for name in NAMES)).from_(found).with_cte(found)
        time, key = found.c.stored_at, found.c.id
    else:
        time, key = Message.stored_at, Message.id
    if after is not None:
        query = query.where(Tuple(time, key) < Tuple(*after))
    return query.order_by(time.desc(), key.desc()).limit(limit)


def _has_few(contains: str) -> bool:
    return bool(database.execute_sql(_HAS_FEW, (contains, _FEW, _FEW + 1)).fetchone()[0])


def _matching(wanted: Filter) -> "ModelSelect[Message]":
    query = Message.select(*(getattr(Message, name) for name in NAMES))
    for column, value in (
        (Message.type, wanted.type),
        (Message.key, wanted.key),
        (Message.topic, wanted.topic),
        (Message.partition, wanted.partition),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(Message.stored_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(Message.stored_at < wanted.until)
    if wanted.contains is not None:
        query = query.where(SQL("payload @> %s::jsonb", [wanted.contains]))
    return query
