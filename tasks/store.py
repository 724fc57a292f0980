"""Storing a batch exactly once, messages and dead letters in one transaction, and what else writes to `message`."""

import io
import uuid
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import psycopg2

from tasks import copying, traces
from tasks.database import REFUSED, database, delete_batches
from tasks.envelope import EARLIEST, LATEST, Message, Record, record_id
from tasks.models import DeadLetter
from tasks.models import Message as MessageRow

_COLUMNS = ", ".join(copying.COLUMNS)
_STAGING_TABLE = "CREATE TEMPORARY TABLE IF NOT EXISTS staged (LIKE message INCLUDING DEFAULTS) ON COMMIT DROP"
_MOVE_STAGED = f"INSERT INTO message ({_COLUMNS}) SELECT {_COLUMNS} FROM staged ON CONFLICT (id) DO NOTHING"
# A record read twice has the payload it had; another payload under the same id is another message.
_CONFLICTS = (
    'SELECT staged."offset", staged.id FROM staged JOIN message USING (id)'
    " WHERE staged.payload IS DISTINCT FROM message.payload"
)
_DELETE_OLDEST = """
    WITH oldest AS (
        SELECT id FROM message
        WHERE stored_at < %(before)s AND (stored_at, id) > (%(after_time)s, %(after_id)s::uuid)
        ORDER BY stored_at, id LIMIT %(rows)s FOR UPDATE SKIP LOCKED
    )
    DELETE FROM message USING oldest WHERE message.id = oldest.id RETURNING message.stored_at, message.id
"""
_COPY_CHUNK_BYTES = 1 << 20  # psycopg2's own 8 KiB means a system call for every 30 messages


@dataclass(frozen=True)
class Dead:
    """A record on its way to `dead_letter`."""

    record: Record
    reason: str
    detail: str
    message_id: bytes | None = None


@dataclass(frozen=True)
class Stored:
    """What storing a batch changed: new messages, messages that were there already, dead letters."""

    stored: int
    duplicates: int
    dead: Sequence[Dead]


def store_batch(
    topic: str, partition: int, records: Sequence[Record], messages: Sequence[Message], dead: Sequence[Dead]
) -> Stored:
    """Keep the messages and dead letters of one batch in one transaction, each exactly once.

    `records` holds every record that `messages` came from. What PostgreSQL refuses, or what brings the
    id of a different message, becomes a dead letter and hurts no neighbour.
    Raises the errors in `database.TRANSIENT`; then nothing was stored.
    """
    with database.atomic():
        copied = _Copy(topic, partition)
        copied.run(messages)
        if copied.refused:
            by_offset = {record.offset: record for record in records}
            refused = (Dead(by_offset[m.offset], reason, detail, m.id) for m, reason, detail in copied.refused)
            dead = [*dead, *refused]
        if dead:
            DeadLetter.insert_many([_dead_row(one) for one in dead]).on_conflict_ignore().execute()
    return Stored(copied.stored, len(messages) - copied.stored - len(copied.refused), dead)


class _Copy:
    """A batch's way into `message`: plain COPY; staged when ids exist already; halved when a value is refused."""

    def __init__(self, topic: str, partition: int) -> None:
        self._topic = topic
        self._partition = partition
        self.stored = 0
        self.refused: list[tuple[Message, str, str]] = []

    def run(self, messages: Sequence[Message], staged: bool = False) -> None:
        """Store `messages`, all or by halves. A savepoint undoes each try that PostgreSQL refuses."""
        if not messages:
            return
        try:
            with database.savepoint():
                if staged:
                    inserted, conflicts = self._staged(messages)
                else:
                    inserted, conflicts = self._copy("message", messages), []
            self.stored += inserted
            self.refused += conflicts
        except psycopg2.errors.UniqueViolation:
            self.run(messages, staged=True)
        except REFUSED as error:
            if len(messages) == 1:
                said = error.diag.message_primary or type(error).__name__
                self.refused.append((messages[0], "refused_by_postgresql", said))
                return
            middle = len(messages) // 2
            self.run(messages[:middle], staged)
            self.run(messages[middle:], staged)

    def _copy(self, table: str, messages: Sequence[Message]) -> int:
        rows = io.BytesIO(copying.encode(self._topic, self._partition, messages))
        statement = f"COPY {table} ({_COLUMNS}) FROM STDIN (FORMAT binary)"
        with database.connection().cursor() as cursor, traces.sql(statement):
            cursor.copy_expert(statement, rows, _COPY_CHUNK_BYTES)
        return len(messages)

    def _staged(self, messages: Sequence[Message]) -> tuple[int, list[tuple[Message, str, str]]]:
        database.execute_sql(_STAGING_TABLE)
        database.execute_sql("TRUNCATE staged")
        self._copy("staged", messages)
        inserted = database.execute_sql(_MOVE_STAGED).rowcount
        by_offset = {message.offset: message for message in messages}
        conflicts = [
            (by_offset[offset], "id_conflict", f"a different message has the id {message_id}")
            for offset, message_id in database.execute_sql(_CONFLICTS).fetchall()
        ]
        return inserted, conflicts


def _dead_row(dead: Dead) -> dict[str, Any]:
    record = dead.record
    # What is refused here is refused for ever, and its neighbours with it.
    headers = [
        [name.replace("\0", "\\x00"), None if raw is None else b64encode(raw).decode()] for name, raw in record.headers
    ]
    produced_at = min(max(record.timestamp, EARLIEST), LATEST)
    return {
        "id": uuid.UUID(bytes=record_id(record)),
        "message_id": None if dead.message_id is None else uuid.UUID(bytes=dead.message_id),
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "produced_at": datetime.fromtimestamp(produced_at / 1000, UTC),
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
    """Delete the messages stored before `moment`, oldest first; yields how many after each short transaction."""
    return delete_batches(_DELETE_OLDEST, moment)


def ping() -> None:
    """Ask PostgreSQL whether `message` can be read. Raises peewee.DatabaseError."""
    MessageRow.select(MessageRow.id).limit(1).execute()
