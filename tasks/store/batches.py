"""Stores a batch exactly once, messages and dead letters in one transaction; and deletes old messages."""

import uuid
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
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
from tasks.store.batch_copy import BatchCopy, Duplicate
from tasks.store.connection import checked_out, database
from tasks.store.models import DeadLetter
from tasks.store.models import Message as MessageRow
from tasks.store.rows import delete_batches

# Storing takes it shared, dead-lettering a lone record exclusively: an earlier attempt, believed dead, may still store.
_LOCKS = {False: "pg_advisory_xact_lock_shared", True: "pg_advisory_xact_lock"}
_LIMITS = """
    SELECT set_config('lock_timeout', %(lock)s, true), set_config('statement_timeout', %(statement)s, true),
        set_config('idle_in_transaction_session_timeout', %(statement)s, true),
        set_config('client_min_messages', 'warning', true)
"""
_DEAD_ALREADY = """
    SELECT id, "offset" FROM dead_letter
    WHERE topic = %s AND "partition" = %s AND "offset" BETWEEN %s AND %s
"""
_STORED_ALREADY = """
    SELECT EXISTS (SELECT FROM message WHERE id = %s AND topic = %s AND "partition" = %s AND "offset" = %s)
"""
# A write, so that this COMMIT waits for the standbys, as the COMMIT of the first attempt should have.
_WRITE_SOMETHING = "SELECT pg_logical_emit_message(true, 'backend', 'redelivered')"
_DELETE_OLDEST = """
    WITH oldest AS (
        SELECT id, topic FROM message
        WHERE stored_at < %(before)s AND (stored_at, id) > (%(after_time)s, %(after_id)s::uuid)
        ORDER BY stored_at, id LIMIT %(rows)s FOR UPDATE SKIP LOCKED
    )
    DELETE FROM message USING oldest WHERE message.id = oldest.id AND message.topic = oldest.topic
    RETURNING message.stored_at, message.id
"""


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
    """The result of storing a batch: new messages, records stored before, duplicates, new dead letters."""

    stored: int
    redelivered: int
    duplicates: Sequence[Duplicate]
    dead: Sequence[Dead]


class BatchStore(Protocol):
    """The store of a worker. This module is the one in PostgreSQL."""

    def store_batch(
        self,
        topic: str,
        partition: int,
        records: Sequence[Record],
        messages: Sequence[Message],
        dead: Sequence[Dead],
        seconds: float = 60,
    ) -> Stored:
        """See the function of this module."""
        ...

    def dead_letter(self, dead: Dead, seconds: float = 60) -> Stored:
        """See the function of this module."""
        ...


def store_batch(
    topic: str,
    partition: int,
    records: Sequence[Record],
    messages: Sequence[Message],
    dead: Sequence[Dead],
    seconds: float = 60,
) -> Stored:
    """Store the messages and dead letters of a batch in one transaction, each exactly once.

    `records` are the records of both `messages` and `dead`. A record that was stored before, as either,
    changes nothing. A message that PostgreSQL rejects, or whose id belongs to a different message, becomes a dead
    letter; its neighbours are stored. PostgreSQL ends each statement within `seconds`, but not the COMMIT.
    Raises the errors in `connection.TRANSIENT`; then it is not known whether anything was stored.
    """
    with _transaction(topic, partition, seconds):
        known = _dead_already(topic, partition, records)
        copied = BatchCopy(topic, partition)
        copied.run([message for message in messages if message.offset not in known])
        if copied.refused:
            by_offset = {record.offset: record for record in records}
            refused = (Dead(by_offset[m.offset], reason, detail, m.id) for m, reason, detail in copied.refused)
            dead = [*dead, *refused]
        new = [one for one in dead if one.record.offset not in known]
        if new:
            DeadLetter.insert_many([_dead_row(one) for one in new]).on_conflict_ignore().execute()
        redelivered = len(records) - copied.stored - len(copied.duplicates) - len(new)
        if redelivered:
            database.execute_sql(_WRITE_SOMETHING)
    return Stored(copied.stored, redelivered, copied.duplicates, new)


def dead_letter(dead: Dead, seconds: float = 60) -> Stored:
    """Store one record that cannot be decoded as a dead letter, unless it was stored before. Raises the same errors."""
    record = dead.record
    with _transaction(record.topic, record.partition, seconds, alone=True):
        message_id = uuid.UUID(bytes=sender_id(record.headers, NO_BODY) or record_id(record))
        place = (message_id, record.topic, record.partition, record.offset)
        known = bool(_dead_already(record.topic, record.partition, [record]))
        known = known or database.execute_sql(_STORED_ALREADY, place).fetchone()[0]
        if known:
            database.execute_sql(_WRITE_SOMETHING)
        else:
            DeadLetter.insert(_dead_row(dead)).execute()
    return Stored(0, 1, (), ()) if known else Stored(0, 0, (), (dead,))


@contextmanager
def _transaction(topic: str, partition: int, seconds: float, alone: bool = False) -> Iterator[None]:
    """A transaction that stores records of one partition, with time limits that are local to it (pgbouncer).

    It gives up early when it waits for a lock, because the holder may keep it for any time. The session of a frozen
    worker is ended, or its locks would remain. Raises psycopg2.OperationalError if PostgreSQL sends a notice with the
    COMMIT: it stopped waiting for a standby, so a failover may lose the batch.
    """
    limits = {"lock": f"{seconds * 400:.0f}ms", "statement": f"{seconds * 800:.0f}ms"}
    with checked_out(), database.atomic():
        database.execute_sql(_LIMITS, limits)
        database.execute_sql(f"SELECT {_LOCKS[alone]}(hashtext(%s), %s)", (topic, partition))
        yield
        notices: list[str] = database.connection().notices
        notices.clear()
    if notices:
        raise psycopg2.OperationalError(f"the COMMIT was not confirmed: {notices[-1].strip()}")


def _dead_already(topic: str, partition: int, records: Sequence[Record]) -> set[int]:
    """The offsets of the records that are in `dead_letter`."""
    place = (topic, partition, records[0].offset, records[-1].offset)
    dead_ids = {row[1]: row[0] for row in database.execute_sql(_DEAD_ALREADY, place).fetchall()}
    if not dead_ids:
        return set()
    ids = {str(one) for one in dead_ids.values()}
    # A topic that was deleted and recreated has other records at the same offsets.
    return {r.offset for r in records if r.offset in dead_ids and str(uuid.UUID(bytes=record_id(r))) in ids}


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


def count_before(moment: datetime) -> int:
    """How many messages were stored before `moment`."""
    return MessageRow.select().where(MessageRow.stored_at < moment).count()


def delete_before(moment: datetime) -> Iterator[int]:
    """Delete the messages stored before `moment`, oldest first; yields the count of each short transaction."""
    return delete_batches(_DELETE_OLDEST, moment)


def ping() -> None:
    """Check that `message` can be read. Raises peewee.DatabaseError."""
    MessageRow.select(MessageRow.id).limit(1).execute()
