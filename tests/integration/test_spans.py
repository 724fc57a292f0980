"""Spans in PostgreSQL: of two attempts at the same records one stores each, and it is known how far all is stored."""

import random
import threading
from collections.abc import Iterator

import psycopg2
import pytest

from tasks.message import Record
from tasks.store import batches, spans
from tasks.store.connection import database
from tasks.store.spans import Source, Span
from tasks.worker.persist import decode_all
from tests.records import OTHER_SOURCE, SOURCE, store_all
from tests.world import World

_NEW = Source("topic", "of the topic that was created later", 0)


@pytest.fixture
def session(tables: World) -> Iterator[World]:
    with database.connection_context():
        yield tables


def stored_until(source: Source = SOURCE, begin: int = 0) -> int:
    return spans.stored_until({source: begin})[source]


def record(offset: int) -> Record:
    value = b"not json" if offset % 7 == 0 else b'{"n": %d}' % offset
    return Record("topic", 0, offset, 1_700_000_000_123, None, value, ())


def test_a_source_begins_once_and_ends_where_a_span_is_missing(session: World) -> None:
    assert stored_until(_NEW, begin=100) == 100
    assert stored_until(_NEW, begin=7) == 100
    assert spans.add(Span(_NEW, 150, 160)) == [Span(_NEW, 150, 160)]
    assert stored_until(_NEW) == 100
    assert spans.add(Span(_NEW, 100, 150)) == [Span(_NEW, 100, 150)]
    assert spans.stored_until({_NEW: 0, SOURCE: 3}) == {_NEW: 160, SOURCE: 0}


def test_after_a_restore_a_span_belongs_to_its_source_or_waits_for_it(session: World) -> None:
    session.sql("TRUNCATE source RESTART IDENTITY")
    with pytest.raises(psycopg2.OperationalError, match="PostgreSQL does not know"):
        spans.add(Span(SOURCE, 0, 10))
    assert stored_until(OTHER_SOURCE) == stored_until(SOURCE) == 0, "in another order than before"
    spans.add(Span(SOURCE, 0, 10))
    assert (stored_until(OTHER_SOURCE), stored_until(SOURCE)) == (0, 10)


def test_only_what_is_new_of_a_span_is_added(session: World) -> None:
    spans.add(Span(SOURCE, 10, 20))
    spans.add(Span(SOURCE, 30, 40))
    assert spans.add(Span(SOURCE, 5, 35)) == [Span(SOURCE, 5, 10), Span(SOURCE, 20, 30)]
    assert spans.add(Span(SOURCE, 5, 35)) == []
    assert spans.add(Span(OTHER_SOURCE, 5, 35)) == [Span(OTHER_SOURCE, 5, 35)]


def test_spans_are_merged_and_say_the_same(session: World) -> None:
    for first in (*range(0, 2000, 10), 2010):
        spans.add(Span(SOURCE, first, first + 10))
    assert [stored_until(), stored_until()] == [2000, 2000]
    assert session.sql("SELECT count(*) FROM span") == [(2,)]
    assert spans.add(Span(SOURCE, 1995, 2015)) == [Span(SOURCE, 2000, 2010)]


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


def test_what_is_read_of_a_recreated_topic_before_that_is_noticed_is_stored_once(session: World) -> None:
    before = [record(offset) for offset in range(20)]
    store_all(batches, before)
    after = [one._replace(timestamp=one.timestamp + 1) for one in before]
    unnoticed = store_all(batches, after[:10])
    assert (unnoticed.stored, len(unnoticed.dead), unnoticed.redelivered) == (8, 2, 0)
    stored_until(_NEW)
    noticed = batches.store_batch(Span(_NEW, 0, 15), after[:15], *decode_all(after[:15]))
    assert (noticed.stored, len(noticed.dead), noticed.redelivered) == (4, 1, 10)
    assert session.count() == 20 + 15
