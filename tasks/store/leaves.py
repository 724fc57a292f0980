"""The leaves of `message`: a table for each day, or more, of `stored_at`, made ahead and dropped as a whole.

So an index is as large as a day is, and deleting old messages touches none of the others. A query names its leaf by
its bounds: planning over a hundred leaves, and locking them, would cost more than most queries.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tasks.store.connection import briefly, database

_AHEAD = timedelta(days=8)  # so that a week without a bridge, or without the rights, stops nothing
_DAY = timedelta(days=1)
_LEAVES_BEFORE_LONGER_ONES = 25
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('message_leaves'))"
_EXISTING = """
    SELECT relname, (bounds[1])::timestamptz, (bounds[2])::timestamptz
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid,
        regexp_match(pg_get_expr(relpartbound, inhrelid), $$FROM \\('(.+)'\\) TO \\('(.+)'\\)$$) AS bounds
    WHERE inhparent = 'message'::regclass AND bounds IS NOT NULL ORDER BY 2
"""
# Two statements, because CREATE TABLE ... PARTITION OF would lock writers out.
_MAKE = """
    CREATE TABLE {name} (LIKE message INCLUDING DEFAULTS);
    ALTER TABLE message ATTACH PARTITION {name} FOR VALUES FROM ('{begin}') TO ('{end}')
"""
_KNOWN_SECONDS = 10.0  # asking costs 7 ms with a hundred leaves
_WIDEST = 8  # leaves in a query: planning takes about 0.2 ms for each, and it locks each with its indexes


class Leaf(NamedTuple):
    """A leaf, and the times of `stored_at` in it, the last exclusive."""

    name: str
    begin: datetime
    end: datetime


class Period(NamedTuple):
    """A time of `stored_at` that a query is limited to, the end exclusive."""

    begin: datetime
    end: datetime


_known: dict[str, tuple[float, list[Leaf]]] = {}  # by database: the leaves, and until when they are not asked for


def existing() -> list[Leaf]:
    """The leaves, oldest first. Raises peewee.DatabaseError."""
    return [Leaf(*row) for row in database.execute_sql(_EXISTING).fetchall()]


def missing(there: Sequence[Leaf], now: datetime) -> list[tuple[datetime, datetime]]:
    """The bounds of leaves that are needed from yesterday to a week ahead. Pure.

    The more leaves there are, the longer are new ones, or years of messages would be too many tables.
    """
    cursor = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - _DAY
    end, length = cursor + _DAY + _AHEAD, _DAY * max(1, len(there) // _LEAVES_BEFORE_LONGER_ONES)
    wanted: list[tuple[datetime, datetime]] = []
    while cursor < end:
        covering = next((leaf for leaf in there if leaf.begin <= cursor < leaf.end), None)
        if covering is not None:
            cursor = covering.end
            continue
        following = min((leaf.begin for leaf in there if leaf.begin > cursor), default=datetime.max.replace(tzinfo=UTC))
        wanted.append((cursor, min(cursor + length, following)))
        cursor = wanted[-1][1]
    return wanted


def are_missing() -> bool:
    """Whether leaves are missing. Raises peewee.DatabaseError."""
    return bool(missing(existing(), _now()))


def make_ahead() -> None:
    """Make the leaves that are missing. No writer waits. Raises peewee.DatabaseError."""
    if are_missing():
        with database.atomic():
            database.execute_sql(_LOCK)
            for begin, end in missing(existing(), _now()):
                make(begin, end)


def make(begin: datetime, end: datetime) -> None:
    """Make a leaf. Raises peewee.DatabaseError."""
    name = f"message_{begin:%Y%m%d}_{end:%Y%m%d}"
    database.execute_sql(_MAKE.format(name=name, begin=begin.isoformat(), end=end.isoformat()))


def ended_before(moment: datetime) -> list[Leaf]:
    """The leaves whose messages were all stored before `moment`, oldest first. Raises peewee.DatabaseError."""
    return [leaf for leaf in existing() if leaf.end <= moment]


def drop(leaf: Leaf) -> bool:
    """Drop a leaf with its messages; False if others read `message` all the time. Writers wait for a moment at most."""
    return briefly(lambda: database.execute_sql(f"DROP TABLE IF EXISTS {leaf.name}"))


def _now() -> datetime:
    now: datetime = database.execute_sql("SELECT now()").fetchone()[0]
    return now


def newest_first(since: datetime | None, until: datetime | None) -> Iterator[Leaf]:
    """The leaves that may hold messages stored from `since` to before `until`, newest first.

    They are remembered for 10 s: new ones are made days before they are used, and one that is dropped is empty.
    """
    latest = until or datetime.now(UTC) + _DAY  # no clock is that wrong, and those made ahead are empty
    for leaf in reversed(_remembered()):
        if leaf.begin < latest and (since is None or since < leaf.end):
            yield leaf


def periods(since: datetime | None, until: datetime | None) -> Iterator[Period]:
    """The same leaves as periods: first the newest alone, then more at once, as what is looked for seems to be rare."""
    waiting, count = list(newest_first(since, until)), 1
    while waiting:
        some, waiting = waiting[:count], waiting[count:]
        yield Period(some[-1].begin, some[0].end)
        count = min(2 * count, _WIDEST)


def _remembered() -> list[Leaf]:
    name, now = str(database.database), time.monotonic()
    until, leaves = _known.get(name, (0.0, []))
    if now >= until or not leaves:
        leaves = existing()
        _known[name] = now + _KNOWN_SECONDS, leaves
    return leaves
