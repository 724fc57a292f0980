"""Stores a batch exactly once, messages and dead letters in one transaction."""

import uuid
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import orjson
import psycopg2

from tasks.message import (
    NO_BODY,
    REDRIVEN_HEADER,
    Message,
    Record,
    produced_at,
    record_id,
    sender_id,
)
from tasks.store import calls as stored_calls
from tasks.store import chunks, spans, statistics, task_registry
from tasks.store import messages as stored_messages
from tasks.store.batch_copy import BatchCopy, Duplicate
from tasks.store.calls import Call
from tasks.store.connection import checked_out, database
from tasks.store.models import DeadLetter
from tasks.store.spans import Span

_LIMITS = f"""
    SELECT set_config('lock_timeout', %(lock)s, true), set_config('statement_timeout', %(statement)s, true),
        set_config('idle_in_transaction_session_timeout', %(statement)s, true),
        set_config('client_min_messages', 'warning', true), {task_registry.SHARED_LOCK}
"""
# Of those who store records again, one at a time looks what is stored: their spans do not keep them apart.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext(%s), %s)"
_DEAD_ALREADY = "SELECT id FROM dead_letter WHERE id = ANY (%s::uuid[])"
_UNNOTICED = timedelta(days=1)  # longer than a recreated topic can be read without that being noticed
# A write, so that this COMMIT waits for the standbys, as the COMMIT of the first attempt should have.
_WRITE_SOMETHING = "SELECT pg_logical_emit_message(true, 'backend', 'redelivered')"


@dataclass(frozen=True)
class Dead:
    """A record that will be stored in `dead_letter`."""

    record: Record
    reason: str
    detail: str
    message_id: bytes | None = None

    def counts(self) -> bool:
        """Whether it counts towards the partition's limit; known ids and redriven records do not."""
        return self.reason != "id_conflict" and REDRIVEN_HEADER not in dict(self.record.headers or ())


@dataclass(frozen=True)
class Stored:
    """The result of storing a batch: new messages, records stored before, duplicates, new dead letters.

    `tasks` are the names of the users' tasks that want some of the new messages.
    """

    stored: int
    redelivered: int
    duplicates: Sequence[Duplicate]
    dead: Sequence[Dead]
    tasks: Sequence[str] = ()


class BatchStore(Protocol):
    """The store of a worker. This module is the one in PostgreSQL."""

    def store_batch(
        self,
        span: Span,
        records: Sequence[Record],
        messages: Sequence[Message],
        dead: Sequence[Dead],
        seconds: float = 60,
        calls: Sequence[Call] = (),
    ) -> Stored:
        """See the function of this module."""
        ...


def store_batch(
    span: Span,
    records: Sequence[Record],
    messages: Sequence[Message],
    dead: Sequence[Dead],
    seconds: float = 60,
    calls: Sequence[Call] = (),
) -> Stored:
    """Store the messages, calls of tasks and dead letters of a batch in one transaction, each exactly once.

    `records` are all records of `span`, in order, those of `messages`, `calls` and `dead`. What of the span was stored
    before changes nothing, and neither does a call whose id was stored. A message that PostgreSQL rejects, or whose id
    belongs to a different message, becomes a dead letter; its neighbours are stored. PostgreSQL ends each statement
    within `seconds`, but not the COMMIT.
    Raises the errors in `connection.TRANSIENT`; then it is not known whether anything was stored.
    """
    with _transaction(seconds):
        known = _add_span(span, records, dead)
        if known:
            messages = [message for message in messages if message.offset not in known]
            dead = [one for one in dead if one.record.offset not in known]
        copied = BatchCopy(records[0].topic, records[0].partition)
        copied.run(messages)
        if copied.refused:
            by_offset = {record.offset: record for record in records}
            refused = (Dead(by_offset[m.offset], reason, detail, m.id) for m, reason, detail in copied.refused)
            dead = [*dead, *refused]
        if dead:
            DeadLetter.insert_many([_dead_row(one) for one in dead]).on_conflict_ignore().execute()
        wanting = _count_and_oblige(span, records, copied.types)
        called = stored_calls.add(calls)
        stored = copied.types.total() + len(called)
        redelivered = len(records) - stored - len(copied.duplicates) - len(dead)
        if redelivered:
            database.execute_sql(_WRITE_SOMETHING)
    return Stored(stored, redelivered, copied.duplicates, dead, (*wanting, *set(called)))


def _add_span(span: Span, records: Sequence[Record], dead: Sequence[Dead]) -> set[int]:
    """Record that the span is stored with this transaction; returns the offsets of records that are stored already."""
    known: set[int] = set()
    new_parts = spans.add(span)
    if new_parts != [span]:
        stored_before = [one for one in records if not _within(new_parts, one.offset)]
        known = _stored_already(stored_before, dead, None, None)
    recreated_at = spans.recreated_at(span)
    if recreated_at is not None:
        known |= _stored_already(records, dead, recreated_at - _UNNOTICED, recreated_at + _UNNOTICED)
    return known


def _count_and_oblige(span: Span, records: Sequence[Record], types: Counter[str | None]) -> tuple[str, ...]:
    """Count the stored messages, and oblige the tasks that want them; returns their names. In one round trip."""
    if not types:
        return ()
    size = sum(len(record.value or b"") for record in records)
    values = {**statistics.addition(span.source.topic, types), **chunks.addition(span, size, types)}
    return tuple(name for (name,) in database.execute_sql(f"{statistics.ADD}; {chunks.ADD}", values).fetchall())


@contextmanager
def _transaction(seconds: float) -> Iterator[None]:
    """A transaction that stores records of one partition, with time limits that are local to it (pgbouncer).

    It gives up early when it waits for a lock, because the holder may keep it for any time. The session of a frozen
    worker is ended, or its locks would remain. Raises psycopg2.OperationalError if PostgreSQL sends a notice with the
    COMMIT: it stopped waiting for a standby, so a failover may lose the batch.
    """
    limits = {"lock": f"{seconds * 400:.0f}ms", "statement": f"{seconds * 800:.0f}ms"}
    with checked_out(), database.atomic():
        database.execute_sql(_LIMITS, limits)
        yield
        notices: list[str] = database.connection().notices
        notices.clear()
    if notices:
        raise psycopg2.OperationalError(f"the COMMIT was not confirmed: {notices[-1].strip()}")


def _stored_already(
    records: Sequence[Record], dead: Sequence[Dead], since: datetime | None, until: datetime | None
) -> set[int]:
    """The offsets of `records` that are stored, but for messages with ids of their own, which their claims tell.

    Their spans may be stored, but that need not mean these records: a topic that was recreated a moment ago, or a log
    that Kafka has cut off, has other records at the same offsets. So their ids are looked up: they contain their times.
    """
    if not records:
        return set()
    topic, partition = records[0].topic, records[0].partition
    database.execute_sql(_LOCK, (topic, partition))
    offsets = {uuid.UUID(bytes=record_id(record)): record.offset for record in records}
    found = database.execute_sql(_DEAD_ALREADY, (list(map(str, offsets)),)).fetchall()
    stored = {offsets[uuid.UUID(str(row[0]))] for row in found}
    looked_up = set(offsets.values())
    claimed: dict[uuid.UUID, int] = {}
    for one in dead:
        given = sender_id(one.record.headers, NO_BODY)
        if given is not None and one.record.offset in looked_up:
            claimed[uuid.UUID(bytes=given)] = one.record.offset
    places = [*stored_messages.places(offsets, since, until)]
    if claimed:
        places += stored_messages.claimed_places(topic, claimed)
    offsets |= claimed
    return stored | {place[2] for key, place in places if place == (topic, partition, offsets[key])}


def _within(parts: Sequence[Span], offset: int) -> bool:
    return any(part.first <= offset < part.next for part in parts)


def _dead_row(dead: Dead) -> dict[str, Any]:
    record = dead.record
    # A value that PostgreSQL rejects here is rejected at every attempt, with all its neighbours.
    headers = [
        [name.replace("\0", "\\x00"), None if raw is None else b64encode(raw).decode()]
        for name, raw in record.headers or ()
    ]
    timestamp = produced_at(record.timestamp)
    return {
        "id": uuid.UUID(bytes=record_id(record)),
        "message_id": None if dead.message_id is None else uuid.UUID(bytes=dead.message_id),
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "produced_at": None if timestamp is None else datetime.fromtimestamp(timestamp / 1000, UTC),
        "dead_at": datetime.now(UTC),
        "reason": dead.reason,
        "detail": dead.detail.replace("\0", "\\x00"),
        "key": record.key,
        "value": record.value,
        "headers": orjson.dumps(headers).decode() if headers else None,
    }
