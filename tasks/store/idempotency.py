"""Every query on `idempotency_key`: the request that a key was used for, so that it is not used for another."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tasks.store.connection import database
from tasks.store.rows import delete_until_none

KEPT_DAYS = 7  # later reuse with another body is not noticed; a repeated message is still stored once
_REMEMBER = "INSERT INTO idempotency_key (key, body) VALUES (%s, %s) ON CONFLICT (key) DO NOTHING"
_DELETED_AT_ONCE = 10_000
_FORGET = """
    DELETE FROM idempotency_key WHERE key IN (
        SELECT key FROM idempotency_key WHERE used_at < %s LIMIT %s FOR UPDATE SKIP LOCKED
    )
"""


def remember(key: uuid.UUID, body: bytes) -> bool:
    """Whether `key` is new, or was used for the same `body` (a digest). Raises the errors in `connection.TRANSIENT`."""
    if database.execute_sql(_REMEMBER, (key, body)).rowcount:
        return True
    row = database.execute_sql("SELECT body FROM idempotency_key WHERE key = %s", (key,)).fetchone()
    return row is None or bytes(row[0]) == body


def forget() -> Iterator[int]:
    """Delete keys used more than KEPT_DAYS ago; yields the count of each short transaction."""
    return delete_until_none(_FORGET, datetime.now(UTC) - timedelta(days=KEPT_DAYS), _DELETED_AT_ONCE)
