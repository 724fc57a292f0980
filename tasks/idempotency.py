"""Every query on `idempotency_key`: which request a client's key stood for, so that it stands for no other."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tasks.database import database

KEPT_DAYS = 7  # a client that retries later than that may reuse a key unnoticed; its message is stored once even so
_REMEMBER = "INSERT INTO idempotency_key (key, body) VALUES (%s, %s) ON CONFLICT (key) DO NOTHING"
_DELETED_AT_ONCE = 10_000
_FORGET = """
    DELETE FROM idempotency_key WHERE key IN (
        SELECT key FROM idempotency_key WHERE used_at < %s LIMIT %s FOR UPDATE SKIP LOCKED
    )
"""


def remember(key: uuid.UUID, body: bytes) -> bool:
    """Whether `key` is new or stood for the same `body` (a digest) before. Raises `database.TRANSIENT`."""
    if database.execute_sql(_REMEMBER, (key, body)).rowcount:
        return True
    row = database.execute_sql("SELECT body FROM idempotency_key WHERE key = %s", (key,)).fetchone()
    return row is None or bytes(row[0]) == body


def forget() -> Iterator[int]:
    """Delete keys used more than KEPT_DAYS ago; yields how many after each short transaction."""
    before = datetime.now(UTC) - timedelta(days=KEPT_DAYS)
    while deleted := database.execute_sql(_FORGET, (before, _DELETED_AT_ONCE)).rowcount:
        yield deleted
