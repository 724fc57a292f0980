"""Logs when the tables do not match this program. The process continues, as old pods do while `init` upgrades."""

import time

import peewee

from tasks.observability import events
from tasks.store import migrations
from tasks.store.connection import ACCESS_DENIED, sqlstate

_SECONDS = 30.0  # between checks


class SchemaWatch:
    """Emits `schema.mismatch` once for each reason, and `schema.match` when the tables match again."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._next_check = time.monotonic()

    def check_if_due(self) -> None:
        """Check the tables if it is time to. Raises peewee.PeeweeException; the next call then checks again."""
        now = time.monotonic()
        if now < self._next_check:
            return
        reason = _mismatch()
        self._next_check = now + _SECONDS
        if reason is not None and reason != self._reason:
            events.emit("schema.mismatch", reason=reason)
        elif reason is None and self._reason is not None:
            events.emit("schema.match")
        self._reason = reason


def _mismatch() -> str | None:
    try:
        return migrations.mismatch()
    except peewee.ProgrammingError as error:
        if sqlstate(error) != ACCESS_DENIED:
            raise
        message = str(error).splitlines()[0]
        return f"PostgreSQL does not let the user of --database-url / DATABASE_URL read the tables: {message}"
