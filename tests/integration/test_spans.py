"""Spans in PostgreSQL: of two attempts at the same records one stores each, and it is known how far all is stored."""

import random
import threading
from collections.abc import Iterator

import psycopg2
import pytest

from tasks.message import Record
from tasks.store import batches, spans
from tasks.store.connection import database
from tasks.store.spans import Place, Source, Span
from tests.records import store_all
from tests.world import World

_PLACE = Place("topic", "id", 0)


@pytest.fixture
def session(tables: World) -> Iterator[World]:
    with database.connection_context():
        yield tables


def next_offset(begin: int = 0) -> int:
    return spans.sources({_PLACE: begin})[_PLACE].next_offset


def record(offset: int) -> Record:
    value = b"not json" if offset % 7 == 0 else b'{"n": %d}' % offset
    return Record("topic", 0, offset, 1_700_000_000_123, None, value, ())


def test_a_source_begins_once_and_ends_where_a_span_is_missing(session: World) -> None:
    number = spans.sources({_PLACE: 100})[_PLACE].number
    assert next_offset(begin=7) == 100
    assert spans.add(Span(number, 150, 160)) == [Span(number, 150, 160)]
    assert next_offset() == 100
    assert spans.add(Span(number, 100, 150)) == [Span(number, 100, 150)]
    assert next_offset() == 160
    other = Place("topic", "of the topic that was created later", 0)
    assert spans.sources({_PLACE: 0, other: 3}) == {_PLACE: Source(number, 160), other: Source(number + 1, 3)}


def test_only_what_is_new_of_a_span_is_added(session: World) -> None:
    spans.add(Span(1, 10, 20))
    spans.add(Span(1, 30, 40))
    assert spans.add(Span(1, 5, 35)) == [Span(1, 5, 10), Span(1, 20, 30)]
    assert spans.add(Span(1, 5, 35)) == []
    assert spans.add(Span(2, 5, 35)) == [Span(2, 5, 35)]


def test_spans_are_merged_and_say_the_same(session: World) -> None:
    number = spans.sources({_PLACE: 0})[_PLACE].number
    for first in (*range(0, 2000, 10), 2010):
        spans.add(Span(number, first, first + 10))
    assert [next_offset(), next_offset()] == [2000, 2000]
    assert session.sql("SELECT count(*) FROM span") == [(2,)]
    assert spans.add(Span(number, 1995, 2015)) == [Span(number, 2000, 2010)]


def test_spans_never_overlap(session: World) -> None:
    session.sql("INSERT INTO span VALUES ('[1, 5)')")
    with pytest.raises(psycopg2.errors.ExclusionViolation):
        session.sql("INSERT INTO span VALUES ('[4, 6)')")


@pytest.mark.parametrize("seed", [0, 10, 20])
def test_attempts_that_are_cut_differently_store_each_record_once(tables: World, seed: int) -> None:
    stored, lock = [], threading.Lock()

    def attempt(chance: random.Random) -> None:
        first = 0
        while first < 2000:
            after = first + chance.randrange(1, 200)
            with database.connection_context():
                outcome = store_all(batches, [record(offset) for offset in range(first, after)])
            with lock:
                stored.append(outcome.stored + len(outcome.dead))
            first = after - chance.choice((0, 0, chance.randrange(after - first)))

    attempts = [threading.Thread(target=attempt, args=(random.Random(seed + number),)) for number in range(4)]
    for thread in attempts:
        thread.start()
    for thread in attempts:
        thread.join()
    offsets = tables.sql('SELECT "offset" FROM message UNION ALL SELECT "offset" FROM dead_letter ORDER BY 1')
    assert [row[0] for row in offsets] == list(range(len(offsets)))
    assert len(offsets) == sum(stored) >= 2000
