"""Which records are stored: a span of offsets for each batch, written in the transaction that stores it.

Spans never overlap (an exclusion constraint), so of two attempts at the same records only one commits, however they
were cut. Nothing else says what is stored, not the offset in Kafka either: a PostgreSQL that was restored from a
backup, or failed over to a server that lagged behind, lacks the spans of what it lacks.

A span is a range of source * 2^44 + offset, so that one column and one index serve all partitions. A source is a
partition of a topic as it was created once.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import psycopg2

from tasks.store.connection import database, local_commit

_OFFSET_BITS = 44
_MOST_SPANS = 64  # of a source, until they are merged
# The number of a source is looked up with each use: after a restore it may belong to another one.
_NUMBER = 'SELECT id::bigint FROM source WHERE topic = %s AND topic_id = %s AND "partition" = %s'
# Waits for the end of a transaction that has written an overlapping span.
_ADD = f"""
    INSERT INTO span SELECT int8range((number << 44) + %s, (number << 44) + %s) FROM ({_NUMBER}) AS source (number)
    ON CONFLICT DO NOTHING
"""
_OVERLAPPING = "SELECT lower(span), upper(span) FROM span WHERE span && int8range(%s, %s) ORDER BY 1"
# When a topic was found to be another one, if that which it was had these offsets, too.
_RECREATED = """
    SELECT source.registered_at FROM source JOIN source AS before USING (topic, "partition")
    WHERE (topic, source.topic_id, "partition") = (%s, %s, %s) AND before.topic_id <> source.topic_id AND EXISTS (
        SELECT FROM span WHERE span && int8range((before.id::bigint << 44) + %s, (before.id::bigint << 44) + %s)
    ) LIMIT 1
"""
# No attempt where it exists: each would take a number.
_REGISTER = """
    INSERT INTO source (topic, topic_id, "partition", first_offset)
    SELECT topic, topic_id, "partition", first_offset
    FROM unnest(%(topics)s, %(topic_ids)s, %(partitions)s, %(offsets)s)
        AS wanted (topic, topic_id, "partition", first_offset)
    WHERE NOT EXISTS (SELECT FROM source WHERE (source.topic, source.topic_id, source."partition")
        = (wanted.topic, wanted.topic_id, wanted."partition"))
    ON CONFLICT DO NOTHING
"""
# The range without a gap that holds a source's first offset, or begins there, ends where all before is stored.
_SOURCES = """
    SELECT topic, topic_id, "partition", id, greatest(first_offset, upper(stored) - base), spans
    FROM source
        JOIN unnest(%(topics)s, %(topic_ids)s, %(partitions)s) AS wanted (topic, topic_id, "partition")
            USING (topic, topic_id, "partition"),
        LATERAL (SELECT id::bigint << 44 AS base) AS places,
        LATERAL (
            SELECT range_agg(span) AS ranges, count(*) AS spans
            FROM span WHERE span <@ int8range(base, base + (1::bigint << 44))
        ) AS found
        LEFT JOIN LATERAL (
            SELECT stored FROM unnest(ranges) AS stored WHERE stored @> base + first_offset
        ) AS without_gap ON true
"""
_MERGE = """
    WITH merged AS (DELETE FROM span WHERE span <@ int8range(%(first)s, %(next)s) RETURNING span)
    INSERT INTO span SELECT unnest(range_agg(span)) FROM merged
"""


class Source(NamedTuple):
    """A partition of a topic, with the id of the topic: a recreated topic has another one."""

    topic: str
    topic_id: str
    partition: int


class Span(NamedTuple):
    """The offsets of a source from `first` to before `next`."""

    source: Source
    first: int
    next: int


def stored_until(first_offsets: Mapping[Source, int]) -> dict[Source, int]:
    """The offset before which all records of each source are stored.

    A new source is registered with the offset at which its reading begins; before that, nothing is missed. Merges the
    spans of a source that has many. Waits for no standby: what is lost with a server is registered again.
    Raises peewee.DatabaseError.
    """
    columns = _columns(first_offsets)
    found: dict[Source, int] = {}
    with local_commit():
        database.execute_sql(_REGISTER, {**columns, "offsets": list(first_offsets.values())})
        for *source, number, next_offset, count in database.execute_sql(_SOURCES, columns).fetchall():
            if count > _MOST_SPANS:
                first = number << _OFFSET_BITS
                database.execute_sql(_MERGE, {"first": first, "next": first + next_offset})
            found[Source(*source)] = next_offset
    return found


def add(span: Span) -> list[Span]:
    """Record that `span` is stored, in the caller's transaction; returns the parts of it that were not stored before.

    Waits for other transactions that store some of the same. Raises peewee.DatabaseError, and psycopg2.OperationalError
    if the source is not registered: its bridge registers it within some seconds (PostgreSQL was restored).
    """
    if _add(span):
        return [span]
    number = database.execute_sql(_NUMBER, span.source).fetchone()
    if number is None:
        raise psycopg2.OperationalError(f"PostgreSQL does not know partition {span.source} yet")
    base = number[0] << _OFFSET_BITS
    added: list[Span] = []
    missing = [span]
    while missing:
        part = missing.pop()
        if _add(part):
            added.append(part)
            continue
        rows = database.execute_sql(_OVERLAPPING, (base + part.first, base + part.next)).fetchall()
        # Another transaction may commit between the two statements, but what it stored is seen then.
        missing += parts_without(part, [(first - base, after - base) for first, after in rows])
    return sorted(added)


def recreated_at(span: Span) -> datetime | None:
    """When it was noticed that the topic had been recreated; None unless it had the same offsets before.

    What was read of the new topic until then was stored as the old one's.
    """
    row = database.execute_sql(_RECREATED, (*span.source, span.first, span.next)).fetchone()
    return None if row is None else row[0]


def parts_without(span: Span, stored: Iterable[tuple[int, int]]) -> list[Span]:
    """What is left of `span` without the ranges in `stored` (first, next), which are in order and do not overlap."""
    left: list[Span] = []
    begin = span.first
    for first, after in stored:
        if first > begin:
            left.append(Span(span.source, begin, min(first, span.next)))
        begin = max(begin, after)
    if begin < span.next:
        left.append(Span(span.source, begin, span.next))
    return [part for part in left if part.first < part.next]


def _add(span: Span) -> bool:
    return bool(database.execute_sql(_ADD, (span.first, span.next, *span.source)).rowcount)


def _columns(sources: Iterable[Source]) -> dict[str, Sequence[object]]:
    topics, topic_ids, partitions = zip(*sources, strict=True)
    return {"topics": list(topics), "topic_ids": list(topic_ids), "partitions": list(partitions)}
