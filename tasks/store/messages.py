"""Reads `message`: one by its id, and pages of a filter, newest first.

A page looks at a limited number of messages, which may be too few to fill it, and then names where the next page goes
on: however rare a type is, and however many messages there are, a request takes no longer.
"""

import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from peewee import SQL, ModelSelect, Tuple

from tasks.store import leaves, payload_index
from tasks.store.connection import database
from tasks.store.leaves import Period
from tasks.store.message_rows import rows_within, size
from tasks.store.models import COLUMNS, Message, StoredMessage
from tasks.store.rows import Keyset, narrowed

_PAGE_BYTES = 4_000_000
_LOOKED_AT = 20_000  # messages for one page: 50 ms while PostgreSQL has them in memory
_FEW = 10_000  # up to this many matches, sorting is faster than scanning from the newest message
# The planner expects a materialized query to be read whole, so it uses the index; it is executed only as far as needed.
_COUNT_FEW = "WITH matches AS MATERIALIZED ({matches}) SELECT count(*) FROM (SELECT 1 FROM matches LIMIT %s) few"
_LAST = """
    WITH looked AS MATERIALIZED ({looked})
    SELECT (SELECT count(*) FROM looked), last.*
    FROM (SELECT) one LEFT JOIN (SELECT * FROM looked ORDER BY stored_at, id LIMIT 1) last ON true
"""
_PLACE_ID_VERSION = 8  # of the UUIDs that `record_id` makes from places
_FROM_PLACE = SQL("get_byte(uuid_send(id), 6) >> 4 = 8")  # the condition of their index
_CLAIMED = "SELECT max(stored_at) FROM claim WHERE id = %s AND (%s::text IS NULL OR topic = %s)"
_CLAIMED_PLACES = """
    SELECT message.id, message.topic, message."partition", message."offset"
    FROM claim JOIN LATERAL (
        SELECT * FROM message
        WHERE message.stored_at = claim.stored_at AND message.id = claim.id AND message.topic = claim.topic OFFSET 0
    ) AS message ON true
    WHERE claim.topic = %s AND claim.id = ANY (%s::uuid[])
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

    def searches(self) -> bool:
        """Whether messages must be looked at that may not match, because the order of time restricts nothing else."""
        return any(value is not None for value in (self.type, self.key, self.topic, self.partition, self.contains))


class Page(NamedTuple):
    """Messages, and the keyset after which the next page starts; None on the last page. Only the last is complete."""

    messages: list[StoredMessage]
    next: Keyset | None


def find(message_id: uuid.UUID, topic: str | None = None) -> StoredMessage | None:
    """The message with this id, or None while it is not stored; without a topic, the newest of all topics.

    Raises peewee.DatabaseError.
    """
    stored_at = _stored_at(message_id, topic)
    if stored_at is None:
        return None
    select = _matching(Filter(topic=topic)).where(Message.id == message_id, Message.stored_at == stored_at).limit(1)
    rows, _ = rows_within(*select.sql(), 1)
    return StoredMessage._make(rows[0]) if rows else None


def _stored_at(message_id: uuid.UUID, topic: str | None) -> datetime | None:
    """When the newest message with this id was stored."""
    claimed: datetime | None = database.execute_sql(_CLAIMED, (message_id, topic, topic)).fetchone()[0]
    if claimed is not None or message_id.version != _PLACE_ID_VERSION:
        return claimed
    # Not max(stored_at), for which PostgreSQL might read the index of times backwards.
    select = Message.select(Message.stored_at).where(Message.id == message_id, _FROM_PLACE)
    if topic is not None:
        select = select.where(Message.topic == topic)
    found = (database.execute_sql(*_within(select, period).sql()).fetchall() for period in leaves.periods(None, None))
    return max(next(filter(None, found), [(None,)]))[0]


def places(
    ids: Collection[uuid.UUID], since: datetime | None, until: datetime | None
) -> Iterator[tuple[uuid.UUID, tuple[str, int, int]]]:
    """Of ids made from places, those that are stored, each with its topic, partition and offset.

    Raises peewee.DatabaseError. Looks in the leaves of that time, from the newest on, until all are found.
    """
    missing = set(ids)
    for period in leaves.periods(since, until):
        if not missing:
            break
        select = _within(Message.select(Message.id, Message.topic, Message.partition, Message.offset), period)
        select = select.where(Message.id << list(missing), _FROM_PLACE)
        for message_id, *place in database.execute_sql(*select.sql()).fetchall():
            missing.discard(message_id)
            yield message_id, tuple(place)


def claimed_places(topic: str, ids: Collection[uuid.UUID]) -> Iterator[tuple[uuid.UUID, tuple[str, int, int]]]:
    """Of ids that came with their records, those stored for `topic`, each with its topic, partition and offset.

    Raises peewee.DatabaseError.
    """
    for message_id, *place in database.execute_sql(_CLAIMED_PLACES, (topic, list(map(str, ids)))).fetchall():
        yield message_id, tuple(place)


def page(query: Filter, after: Keyset | None, limit: int, most_bytes: int = _PAGE_BYTES) -> Page:
    """Up to `limit` messages, newest first, older than `after`.

    Fewer if their text exceeds `most_bytes`, or if _LOOKED_AT messages have no more that match.
    Raises peewee.DatabaseError.
    """
    messages: list[StoredMessage] = []
    indexed = _indexed(query)
    to_look_at = _LOOKED_AT
    until = query.until if after is None else after.time + timedelta(microseconds=1)
    for period in leaves.periods(query.since, until):
        matches = _count_few(indexed, period) if indexed else None
        if matches == 0:
            continue
        few = matches is not None and matches <= _FEW
        looked = None
        if not few and query.searches():
            looked_at, looked = _look_ahead(query, after, period, to_look_at)
            to_look_at -= looked_at
        select = _select(query, after, looked, period, limit - len(messages), few)
        rows, cut = rows_within(*select.sql(), most_bytes)
        messages += map(StoredMessage._make, rows)
        most_bytes -= size(rows)
        if cut or len(messages) == limit or most_bytes <= 0:
            return Page(messages, Keyset(messages[-1].stored_at, messages[-1].id))
        if looked is not None:
            return Page(messages, looked)
    return Page(messages, None)


def ping() -> None:
    """Check that `message` can be read. Raises peewee.DatabaseError."""
    Message.select(Message.id).where(Message.stored_at == datetime.now(UTC)).limit(1).execute()


def _look_ahead(query: Filter, after: Keyset | None, period: Period, most: int) -> tuple[int, Keyset | None]:
    """How many messages of a period a page looks at, and the last of them; None if it can look at all."""
    time = Message.stored_at
    select = _within(narrowed(Message.select(time, Message.id), (), time, query.since, query.until), period)
    if after is not None:
        select = select.where(Tuple(time, Message.id) < Tuple(*after))
    looked = select.order_by(time.desc(), Message.id.desc()).limit(most).sql()
    with database.atomic():
        # Where PostgreSQL has not counted a new leaf yet, it expects few messages, and would read and sort all.
        database.execute_sql("SET LOCAL enable_sort = off")
        count, *last = database.execute_sql(_LAST.format(looked=looked[0]), looked[1]).fetchone()
        database.execute_sql("SET LOCAL enable_sort TO DEFAULT")
    return count, Keyset(*last) if count == most else None


def _select(
    query: Filter, after: Keyset | None, looked_at: Keyset | None, period: Period, limit: int, few: bool
) -> "ModelSelect[Message]":
    select = _within(_matching(query), period)
    if few:
        # The planner does not know how rare a value is, and would search from the newest message on; for a rare one
        # that reads the whole period.
        matches = select.cte("matches", materialized=True)
        select = Message.select(*(getattr(matches.c, name) for name in COLUMNS)).from_(matches).with_cte(matches)
        time, key = matches.c.stored_at, matches.c.id
    else:
        time, key = Message.stored_at, Message.id
    if after is not None:
        select = select.where(Tuple(time, key) < Tuple(*after))
    if looked_at is not None:
        select = select.where(Tuple(time, key) >= Tuple(*looked_at))
    return select.order_by(time.desc(), key.desc()).limit(limit)


def _indexed(query: Filter) -> list[Any]:
    """The conditions of a filter that an index serves, which is not one of times."""
    conditions: list[Any] = []
    if query.key is not None:
        conditions += _of_key(query.key)
    if query.contains is not None and payload_index.exists():
        conditions.append(_of_payload(query.contains))
    return conditions


def _count_few(indexed: list[Any], period: Period) -> int:
    """How many messages of a period meet these conditions; no further than just over _FEW."""
    matches, values = _within(Message.select(SQL("1")).where(*indexed), period).sql()
    return int(database.execute_sql(_COUNT_FEW.format(matches=matches), [*values, _FEW + 1]).fetchone()[0])


def _within(select: "ModelSelect[Message]", period: Period) -> "ModelSelect[Message]":
    return select.where(Message.stored_at >= period.begin, Message.stored_at < period.end)


def _matching(query: Filter) -> "ModelSelect[Message]":
    select = Message.select(*(getattr(Message, name) for name in COLUMNS))
    wanted = (
        (Message.type, query.type),
        (Message.topic, query.topic),
        (Message.partition, query.partition),
    )
    select = narrowed(select, wanted, Message.stored_at, query.since, query.until)
    if query.key is not None:
        select = select.where(*_of_key(query.key))
    if query.contains is not None:
        select = select.where(_of_payload(query.contains))
    return select


def _of_key(key: str) -> list[Any]:
    """Its hash, which the index has; and the key itself."""
    return [SQL("hashtextextended(key, 0) = hashtextextended(%s, 0)", [key]), Message.key == key]


def _of_payload(contained: str) -> SQL:
    return SQL("payload @> %s::jsonb", [contained])
