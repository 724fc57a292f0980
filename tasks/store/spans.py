"""Which records are stored: a span of offsets for each batch, written in the transaction that stores it.

Spans never overlap (an exclusion constraint), so of two attempts at the same records only one commits, however they
were cut. Nothing else says what is stored, not the offset in Kafka either: a PostgreSQL that was restored from a
backup, or failed over to a server that lagged behind, lacks the spans of what it lacks.

A span is a range of source * 2^44 + offset, so that one column and one index serve all partitions. A source is a
partition of a topic as it was created once.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tasks.store.connection import database

_OFFSET_BITS = 44
_MOST_SPANS = 64  # of a source, until they are merged
# Waits for the end of a transaction that has written an overlapping span.
_ADD = "INSERT INTO span VALUES (int8range(%s, %s)) ON CONFLICT DO NOTHING"
_OVERLAPPING = "SELECT lower(span), upper(span) FROM span WHERE span && int8range(%s, %s) ORDER BY 1"
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


class Span(NamedTuple):
    """The offsets of a source from `first` to before `next`."""

    source: int
    first: int
    next: int


class Place(NamedTuple):
    """A partition of a topic, with the id of the topic: a recreated topic has another one."""

    topic: str
    topic_id: str
    partition: int


class Source(NamedTuple):
    """The number of a source, and the offset before which all of its records are stored."""

    number: int
    next_offset: int


def sources(first_offsets: Mapping[Place, int]) -> dict[Place, Source]:
    """The sources of partitions, and how far each is stored without a gap.

    A new source is registered with the offset at which its reading begins; before that, nothing is missed. Merges the
    spans of a source that has many. Raises peewee.DatabaseError.
    """
    columns = _columns(first_offsets)
    database.execute_sql(_REGISTER, {**columns, "offsets": list(first_offsets.values())})
    found: dict[Place, Source] = {}
    for topic, topic_id, partition, number, next_offset, spans in database.execute_sql(_SOURCES, columns).fetchall():
        if spans > _MOST_SPANS:
            first = number << _OFFSET_BITS
            database.execute_sql(_MERGE, {"first": first, "next": first + next_offset})
        found[Place(topic, topic_id, partition)] = Source(number, next_offset)
    return found


def add(span: Span) -> list[Span]:
    """Record that `span` is stored, in the caller's transaction; returns the parts of it that were not stored before.

    Waits for other transactions that store some of the same. Raises peewee.DatabaseError.
    """
    if _add(span):
        return [span]
    added: list[Span] = []
    missing = [span]
    while missing:
        part = missing.pop()
        if _add(part):
            added.append(part)
            continue
        base = part.source << _OFFSET_BITS
        rows = database.execute_sql(_OVERLAPPING, (base + part.first, base + part.next)).fetchall()
        # Another transaction may commit between the two statements, but what it stored is seen then.
        missing += parts_without(part, [(first - base, after - base) for first, after in rows])
    return sorted(added)


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
    base = span.source << _OFFSET_BITS
    return bool(database.execute_sql(_ADD, (base + span.first, base + span.next)).rowcount)


def _columns(places: Iterable[Place]) -> dict[str, Sequence[object]]:
    topics, topic_ids, partitions = zip(*places, strict=True)
    return {"topics": list(topics), "topic_ids": list(topic_ids), "partitions": list(partitions)}
