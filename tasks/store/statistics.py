"""Counts of stored messages and dead letters, within a time range that an index serves."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tasks.store.connection import database

TYPES = 50  # the number of types in a response
_IN_RANGE = "FROM message WHERE stored_at >= %s AND stored_at < %s AND (%s::text IS NULL OR type = %s)"
_BUCKETS = f"SELECT date_trunc(%s, stored_at, 'UTC') AS bucket, count(*) {_IN_RANGE} GROUP BY bucket ORDER BY bucket"
_BY_TYPE = f"SELECT type, count(*) {_IN_RANGE} GROUP BY type ORDER BY count(*) DESC, type LIMIT {TYPES}"
_RATES = """
    SELECT count(*) FILTER (WHERE stored_at > now() - interval '1 minute') / 60.0,
        count(*) FILTER (WHERE stored_at > now() - interval '5 minutes') / 300.0,
        count(*) / 900.0
    FROM message WHERE stored_at > now() - interval '15 minutes'
"""


def buckets(size: str, since: datetime, until: datetime, kind: str | None) -> list[tuple[datetime, int]]:
    """Messages stored in each `size` (minute, hour or day of UTC) with at least one, in order; of one type or all."""
    return list(database.execute_sql(_BUCKETS, (size, since, until, kind, kind)).fetchall())


def by_type(since: datetime, until: datetime, kind: str | None) -> list[tuple[str | None, int]]:
    """Messages by type, the most frequent TYPES of them."""
    return list(database.execute_sql(_BY_TYPE, (since, until, kind, kind)).fetchall())


def rates() -> tuple[float, float, float]:
    """Messages stored a second, over the last 1, 5 and 15 minutes."""
    row: Sequence[Any] = database.execute_sql(_RATES).fetchone()
    return float(row[0]), float(row[1]), float(row[2])


def dead_letters() -> list[tuple[str, str, int]]:
    """The number of dead letters by reason and state."""
    query = "SELECT reason, state, count(*) FROM dead_letter GROUP BY reason, state ORDER BY reason, state"
    return list(database.execute_sql(query).fetchall())
