"""Says in the log when the tables do not fit this program; it works on, as old pods do while `init` upgrades."""

import time

import peewee

from tasks import schema, telemetry
from tasks.database import ACCESS_DENIED, sqlstate

_SECONDS = 30.0  # between two checks


class SchemaWatch:
    """Emits `tables.mismatch` once for each reason, and `tables.match` when the tables fit again."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._next_check = time.monotonic()

    def turn(self) -> None:
        """Check the tables if it is time to. Raises peewee.PeeweeException; then the next turn tries again."""
        now = time.monotonic()
        if now < self._next_check:
            return
        reason = _mismatch()
        self._next_check = now + _SECONDS
        if reason is not None and reason != self._reason:
            telemetry.emit("tables.mismatch", reason=reason)
        elif reason is None and self._reason is not None:
            telemetry.emit("tables.match")
        self._reason = reason


def _mismatch() -> str | None:
    try:
        return schema.mismatch()
    except peewee.ProgrammingError as error:
        if sqlstate(error) != ACCESS_DENIED:
            raise
        message = str(error).splitlines()[0]
        return f"PostgreSQL does not let the user of --database-url / DATABASE_URL read the tables: {message}"
