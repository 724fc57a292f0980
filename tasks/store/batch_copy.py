"""Copies the messages of a batch into `message`, and separates new rows, known ids, and what PostgreSQL rejects."""

import io
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg2

from tasks.message import CHANGING_HEADERS, OUTBOX_HEADER, Message
from tasks.observability import traces
from tasks.store import binary_copy
from tasks.store.connection import REFUSED, database

_COLUMNS = ", ".join(binary_copy.COPIED_COLUMNS)
_STAGING_TABLE = "CREATE TEMPORARY TABLE IF NOT EXISTS staged (LIKE message INCLUDING DEFAULTS) ON COMMIT DROP"
# Waits for the end of a transaction that claims the same id. Of two records in a batch the first has it.
_MOVE_STAGED = f"""
    WITH claimed AS (
        INSERT INTO claim (id, topic) SELECT DISTINCT id, topic FROM staged ON CONFLICT DO NOTHING RETURNING id
    ), moved AS (
        INSERT INTO message ({_COLUMNS})
        SELECT {_COLUMNS} FROM (
            SELECT DISTINCT ON (id) staged.* FROM staged JOIN claimed USING (id) ORDER BY id, staged."offset"
        ) AS first
        RETURNING type
    )
    SELECT type FROM moved
"""
# The times between which the ids were claimed, which say in which leaves their messages are; and how many were.
_CLAIMED = "SELECT min(claim.stored_at), max(claim.stored_at), count(*) FROM staged JOIN claim USING (id, topic)"
_CONTENT = """
    ({0}.type, {0}.key, {0}.payload, lower({0}.headers->>%(id)s), coalesce({0}.headers, '{{}}') - %(others)s::text[])
"""
# The id is compared in lower case: a UUID may be in upper or lower case.
_NOT_CONTENT = {"id": OUTBOX_HEADER, "others": [*CHANGING_HEADERS, OUTBOX_HEADER]}
# Records whose id was stored from another place, and whether it is the same message. If retention has deleted that
# message, its place is null.
_KNOWN = f"""
    SELECT staged."offset", message."partition", message."offset",
        message.id IS NULL OR {_CONTENT.format("staged")} IS NOT DISTINCT FROM {_CONTENT.format("message")}
    FROM staged JOIN claim USING (id, topic) LEFT JOIN LATERAL (
        SELECT * FROM message
        WHERE message.stored_at = claim.stored_at AND message.id = staged.id AND message.topic = staged.topic
            AND message.stored_at BETWEEN %(first)s AND %(last)s
        OFFSET 0 -- so that each is looked up, in its leaf
    ) AS message ON true
    WHERE (staged."partition", staged."offset", staged.produced_at)
        IS DISTINCT FROM (message."partition", message."offset", message.produced_at)
"""
_COPY_CHUNK_BYTES = 1 << 20  # psycopg2's own 8 KiB means a system call for every 30 messages


class Duplicate(NamedTuple):
    """A record whose message was stored before, from another place (None: it is deleted), with the same content."""

    message: Message
    stored_partition: int | None
    stored_offset: int | None


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
                stored, known = self._staged(messages) if staged else (self._direct(messages), [])
            self.types.update(stored)
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

    def _direct(self, messages: Sequence[Message]) -> list[str | None]:
        """Store messages whose ids are all new; returns their types."""
        own = [message for message in messages if message.has_own_id]
        if own:
            self._copy("claim (id, topic)", binary_copy.encode_claims(self._topic, own))
        self._copy(f"message ({_COLUMNS})", binary_copy.encode(self._topic, self._partition, messages))
        return [message.type for message in messages]

    def _copy(self, target: str, rows: bytes) -> None:
        statement = f"COPY {target} FROM STDIN (FORMAT binary)"
        with database.connection().cursor() as cursor, traces.sql(statement):
            cursor.copy_expert(statement, io.BytesIO(rows), _COPY_CHUNK_BYTES)

    def _staged(self, messages: Sequence[Message]) -> tuple[list[str | None], list[tuple[Any, ...]]]:
        """Store the new messages; returns their types, and the rows of _KNOWN."""
        others = [message for message in messages if not message.has_own_id]
        stored = self._direct(others) if others else []
        own = [message for message in messages if message.has_own_id]
        database.execute_sql(_STAGING_TABLE)
        database.execute_sql("TRUNCATE staged")
        self._copy(f"staged ({_COLUMNS})", binary_copy.encode(self._topic, self._partition, own))
        while True:
            stored += [kind for (kind,) in database.execute_sql(_MOVE_STAGED).fetchall()]
            first, last, claimed = database.execute_sql(_CLAIMED).fetchone()
            if claimed == len(own):  # otherwise retention has deleted a claim in between
                values = {**_NOT_CONTENT, "first": first, "last": last}
                return stored, database.execute_sql(_KNOWN, values).fetchall()

    def _sort_out(self, messages: Sequence[Message], known: Sequence[tuple[Any, ...]]) -> None:
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
