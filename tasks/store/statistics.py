"""Counts of stored messages by time and type, kept beside the messages: what they cost does not grow with those.

The transaction that stores a batch adds a row for each of its types. `condense` merges the rows of a minute once it has
ended, and those of an hour after two days.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from tasks.store.connection import database

TYPES = 50  # the number of types in a response
TYPES_OF_A_BATCH = 200  # the others are counted without their names, or a type for each message would cost a row each
TYPE_CHARACTERS = 200  # longer types are counted so as well
_TYPES_OF_AN_HOUR = 1000
_LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('message_count'))"
ADD = """
    INSERT INTO message_count (precision, at, topic, type, other, messages)
    SELECT 'exact', now(), %(topic)s, stored.*
    FROM unnest(%(types)s::text[], %(others)s::boolean[], %(messages)s::bigint[]) AS stored
"""
_MINUTES = """
    WITH ended AS (
        DELETE FROM message_count
        WHERE precision = 'exact' AND at < date_trunc('minute', now()) - interval '1 minute' RETURNING *
    )
    INSERT INTO message_count (precision, at, topic, type, other, messages)
    SELECT 'minute', date_trunc('minute', at), topic, type, other, sum(messages) FROM ended GROUP BY 2, 3, 4, 5
"""
_HOURS = """
    WITH old AS (
        DELETE FROM message_count
        WHERE precision = 'minute' AND at < date_trunc('hour', now(), 'UTC') - interval '2 days' RETURNING *
    ), counted AS (
        SELECT date_trunc('hour', at, 'UTC') AS hour, topic, type, other, sum(messages) AS messages
        FROM old GROUP BY 1, 2, 3, 4
    ), ranked AS (
        SELECT *, row_number() OVER (PARTITION BY hour, topic ORDER BY other, messages DESC) AS rank FROM counted
    )
    INSERT INTO message_count (precision, at, topic, type, other, messages)
    SELECT 'hour', hour, topic, CASE WHEN rank <= %(types)s THEN type END, other OR rank > %(types)s, sum(messages)
    FROM ranked GROUP BY 2, 3, 4, 5
"""
_BEFORE = "SELECT coalesce(sum(messages), 0)::bigint FROM message_count WHERE at < %s"
_FORGET = "DELETE FROM message_count WHERE at < %s"
_IN_RANGE = """
    FROM message_count WHERE at >= date_trunc('minute', %s::timestamptz) AND at < %s AND (%s::text IS NULL OR type = %s)
"""
_BUCKETS = f"SELECT date_trunc(%s, at, 'UTC') AS bucket, sum(messages)::bigint {_IN_RANGE} GROUP BY bucket ORDER BY 1"
_BY_TYPE = f"""
    SELECT type, sum(messages)::bigint {_IN_RANGE} AND NOT other GROUP BY type ORDER BY 2 DESC, type LIMIT {TYPES}
"""
_OTHER = f"SELECT coalesce(sum(messages), 0)::bigint {_IN_RANGE} AND other"
# Minutes that have ended are counted from their second one on, so the time range begins there, too.
_RATES = """
    SELECT sum(messages) FILTER (WHERE at > now() - interval '1 minute') / 60.0,
        sum(messages) FILTER (WHERE at >= five) / extract(epoch FROM now() - five),
        sum(messages) / extract(epoch FROM now() - fifteen)
    FROM message_count, (SELECT date_trunc('minute', now()) - interval '4 minutes',
        date_trunc('minute', now()) - interval '14 minutes') AS begin (five, fifteen)
    WHERE at >= fifteen GROUP BY five, fifteen
"""


class ByType(NamedTuple):
    """Messages by type, the most frequent TYPES of them; and those whose types were too many to count by name."""

    types: Sequence[tuple[str | None, int]]
    other: int


def addition(topic: str, stored: Counter[str | None]) -> dict[str, Any]:
    """The values of ADD, which counts the messages that a transaction stores by type; there is at least one."""
    short = Counter({kind: count for kind, count in stored.items() if len(kind or "") <= TYPE_CHARACTERS})
    named = short.most_common(TYPES_OF_A_BATCH)
    rows = [(kind, False, count) for kind, count in named]
    if len(stored) > len(named):
        rows.append((None, True, stored.total() - sum(count for _, count in named)))
    types, others, messages = map(list, zip(*rows, strict=True))
    return {"topic": topic, "types": types, "others": others, "messages": messages}


def condense() -> None:
    """Merge rows of minutes and hours that have ended, unless another process does. Raises peewee.DatabaseError."""
    with database.atomic():
        if database.execute_sql(_LOCK).fetchone()[0]:
            database.execute_sql(_MINUTES)
            database.execute_sql(_HOURS, {"types": _TYPES_OF_AN_HOUR})


def count_before(moment: datetime) -> int:
    """How many messages were stored before `moment`, as far as their counts are kept."""
    return int(database.execute_sql(_BEFORE, (moment,)).fetchone()[0])


def forget_before(moment: datetime) -> None:
    """Delete the counts of messages stored before `moment`."""
    database.execute_sql(_FORGET, (moment,))


def buckets(size: str, since: datetime, until: datetime, kind: str | None) -> list[tuple[datetime, int]]:
    """Messages stored in each `size` (minute, hour or day of UTC) with at least one, in order; of one type or all.

    From the start of the minute of `since`. After two days only whole hours are known.
    """
    return list(database.execute_sql(_BUCKETS, (size, since, until, kind, kind)).fetchall())


def by_type(since: datetime, until: datetime, kind: str | None) -> ByType:
    """Messages of a time range by type; as `buckets`."""
    values = (since, until, kind, kind)
    types = database.execute_sql(_BY_TYPE, values).fetchall()
    return ByType(types, int(database.execute_sql(_OTHER, values).fetchone()[0]))


def rates() -> tuple[float, float, float]:
    """Messages stored a second, over about the last 1, 5 and 15 minutes."""
    row: Sequence[Any] = database.execute_sql(_RATES).fetchone() or (0, 0, 0)
    return float(row[0] or 0), float(row[1] or 0), float(row[2] or 0)


def dead_letters() -> list[tuple[str, str, int]]:
    """The number of dead letters by reason and state."""
    query = "SELECT reason, state, count(*) FROM dead_letter GROUP BY reason, state ORDER BY reason, state"
    return list(database.execute_sql(query).fetchall())
