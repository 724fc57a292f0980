"""Copies the messages of a batch into `message`, and separates new rows, known ids, and what PostgreSQL rejects."""

import io
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import psycopg2

from tasks.message import CHANGING_HEADERS, OUTBOX_HEADER, Message
from tasks.observability import traces
from tasks.store import binary_copy
from tasks.store.connection import REFUSED, database

_COLUMNS = ", ".join(binary_copy.COPIED_COLUMNS)
_STAGING_TABLE = "CREATE TEMPORARY TABLE IF NOT EXISTS staged (LIKE message INCLUDING DEFAULTS) ON COMMIT DROP"
_MOVE_STAGED = f"""
    INSERT INTO message ({_COLUMNS}) SELECT {_COLUMNS} FROM staged ORDER BY staged."offset"
    ON CONFLICT (id, topic) DO NOTHING RETURNING type
"""
_CONTENT = """
    ({0}.type, {0}.key, {0}.payload, lower({0}.headers->>%(id)s), coalesce({0}.headers, '{{}}') - %(others)s::text[])
"""
# The id is compared in lower case: a UUID may be in upper or lower case.
_NOT_CONTENT = {"id": OUTBOX_HEADER, "others": [*CHANGING_HEADERS, OUTBOX_HEADER]}
# Records whose id was stored from another place, and whether it is the same message. If retention deleted
# that message in between, its place is null.
_KNOWN = f"""
    SELECT staged."offset", message."partition", message."offset",
        {_CONTENT.format("staged")} IS NOT DISTINCT FROM {_CONTENT.format("message")}
    FROM staged LEFT JOIN message USING (id, topic)
    WHERE (staged."partition", staged."offset", staged.produced_at)
        IS DISTINCT FROM (message."partition", message."offset", message.produced_at)
"""
_COPY_CHUNK_BYTES = 1 << 20  # psycopg2's own 8 KiB means a system call for every 30 messages


class Duplicate(NamedTuple):
    """A record whose message was stored before, from another place and with the same content."""

    message: Message
    stored_partition: int
    stored_offset: int


class BatchCopy:
    """Direct COPY; staged if ids exist already; split if a value is rejected. Runs in the caller's transaction."""

    def __init__(self, topic: str, partition: int) -> None:
        self._topic = topic
        self._partition = partition
        self.types: Counter[str | None] = Counter()  # of the stored messages
        self.duplicates: list[Duplicate] = []
        self.refused: list[tuple[Message, str, str]] = []

    def run(self, messages: Sequence[Message], staged: bool = False) -> None:
        """Store `messages`, all or by halves. A savepoint undoes each attempt that PostgreSQL rejects."""
        if not messages:
            return
        try:
            with database.savepoint():
                if staged:
                    inserted, known = self._staged(messages)
                else:
                    self._copy("message", messages)
                    inserted, known = [message.type for message in messages], []
            self.types.update(inserted)
            self._sort_out(messages, known)
        except psycopg2.errors.UniqueViolation:
            self.run(messages, staged=True)
        except REFUSED as error:
            if len(messages) == 1:
                message_text = error.diag.message_primary or type(error).__name__
                self.refused.append((messages[0], "refused_by_postgresql", message_text))
                return
            middle = len(messages) // 2
            self.run(messages[:middle], staged)
            self.run(messages[middle:], staged)

    def _copy(self, table: str, messages: Sequence[Message]) -> None:
        rows = io.BytesIO(binary_copy.encode(self._topic, self._partition, messages))
        statement = f"COPY {table} ({_COLUMNS}) FROM STDIN (FORMAT binary)"
        with database.connection().cursor() as cursor, traces.sql(statement):
            cursor.copy_expert(statement, rows, _COPY_CHUNK_BYTES)

    def _staged(self, messages: Sequence[Message]) -> tuple[list[str | None], list[tuple[int, int, int, bool]]]:
        """Store the new messages; returns their types, and the rows of _KNOWN."""
        database.execute_sql(_STAGING_TABLE)
        database.execute_sql("TRUNCATE staged")
        self._copy("staged", messages)
        inserted: list[str | None] = []
        while True:
            inserted += [kind for (kind,) in database.execute_sql(_MOVE_STAGED).fetchall()]
            known = database.execute_sql(_KNOWN, _NOT_CONTENT).fetchall()
            if all(stored_offset is not None for _, _, stored_offset, _ in known):
                return inserted, known

    def _sort_out(self, messages: Sequence[Message], known: Sequence[tuple[int, int, int, bool]]) -> None:
        if not known:
            return
        by_offset = {message.offset: message for message in messages}
        for offset, stored_partition, stored_offset, same in known:
            message = by_offset[offset]
            if same:
                self.duplicates.append(Duplicate(message, stored_partition, stored_offset))
                continue
            place = f"partition {stored_partition}, offset {stored_offset}"
            detail = f"a different message has the id {uuid.UUID(bytes=message.id)}: {place}"
            self.refused.append((message, "id_conflict", detail))
