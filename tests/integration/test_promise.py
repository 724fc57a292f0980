"""The promise as a model: whatever bridges, workers, Kafka and PostgreSQL do in any order, a record is stored once."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import hypothesis
import psycopg2
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tasks.message import Record
from tasks.store import batches, spans
from tasks.store.connection import database
from tasks.store.spans import Source, Span
from tasks.worker.persist import decode_all
from tests.world import World

_TABLES = ("message", "claim", "dead_letter", "message_count", "source", "span")
_BEGINNING = 1_700_000_000_000
_KINDS = st.lists(st.sampled_from(("plain", "not JSON", "new id", "known id", "other content")), min_size=1, max_size=6)
_OUTCOMES = st.sampled_from(("reported", "result is lost", "worker is killed"))


class _Killed(Exception):
    pass


@dataclass
class _Batch:
    """A batch in flight."""

    span: Span
    records: Sequence[Record]


class Promise(RuleBasedStateMachine):
    """One partition. `log` is what Kafka has, `stored` what must be in PostgreSQL for ever."""

    def __init__(self) -> None:
        super().__init__()
        for table in _TABLES:
            database.execute_sql(f"DELETE FROM {table}")  # faster than TRUNCATE for a few rows in many leaves
        self.log: list[Record] = []
        self.stored: set[Record] = set()
        self.in_flight: list[_Batch] = []
        self.topics = 0  # how often the topic was recreated
        self.noticed = 0  # of those, what the bridge knows of
        self.reading = self.handed_over = 0
        self.made = 0  # records and ids so far
        self.ids: list[tuple[int, int]] = []  # with the content of each
        self.backup: set[Record] | None = None  # what PostgreSQL had stored then
        self.rebalance()

    @rule(kinds=_KINDS, chance=st.randoms(use_true_random=False))
    def produce(self, kinds: Sequence[str], chance: random.Random) -> None:
        for kind in kinds:
            self.made += 1
            number, content = self.made, self.made
            if kind in ("known id", "other content") and self.ids:
                number, known = chance.choice(self.ids)
                content = known if kind == "known id" else content
            elif kind != "plain":
                self.ids.append((number, content))
            own = kind in ("new id", "known id", "other content")
            headers = (("message-id", f"00000000-0000-4000-8000-{number:012}".encode()),) if own else ()
            value = b"not JSON" if kind == "not JSON" else b'{"n": %d}' % content
            self.log.append(Record("topic", 0, len(self.log), _BEGINNING + self.made, None, value, headers))

    @rule(count=st.integers(1, 8))
    def hand_over(self, count: int) -> None:
        records = self.log[self.reading : self.reading + count]
        if records:
            begin = min(self.handed_over, records[0].offset)
            self.reading = self.handed_over = records[-1].offset + 1
            self.in_flight.append(_Batch(Span(self._source(), begin, self.handed_over), records))

    @precondition(lambda self: self.in_flight)
    @rule(chosen=st.integers(0, 100), outcome=_OUTCOMES)
    def attempt(self, chosen: int, outcome: str) -> None:
        batch = self.in_flight[chosen % len(self.in_flight)]
        try:
            with database.atomic():
                batches.store_batch(batch.span, batch.records, *decode_all(batch.records))
                if outcome == "worker is killed":
                    raise _Killed
        except _Killed:
            return
        except psycopg2.OperationalError:  # a restored PostgreSQL does not know the source yet
            if batch.span.source != self._source():
                self.in_flight.remove(batch)  # nor ever will
            return
        self.stored |= set(batch.records)
        if outcome == "reported":
            self.in_flight.remove(batch)

    @precondition(lambda self: any(len(batch.records) > 1 for batch in self.in_flight))
    @rule(chosen=st.integers(0, 100))
    def split(self, chosen: int) -> None:
        long = [batch for batch in self.in_flight if len(batch.records) > 1]
        batch = long[chosen % len(long)]
        middle = len(batch.records) // 2
        border = batch.records[middle - 1].offset + 1
        self.in_flight.remove(batch)
        self.in_flight.append(_Batch(batch.span._replace(next=border), batch.records[:middle]))
        self.in_flight.append(_Batch(batch.span._replace(first=border), batch.records[middle:]))

    @rule()
    def rebalance(self) -> None:
        """Another bridge goes on; workers may still store what the one before had handed over."""
        self.noticed = self.topics
        self.reading = self.handed_over = spans.stored_until({self._source(): 0})[self._source()]

    @rule()
    def recreate_the_topic(self) -> None:
        """The client begins at its start; the bridge has not noticed yet."""
        self.topics += 1
        self.log = []
        self.reading = 0

    @rule()
    def back_up(self) -> None:
        self.backup = set(self.stored)
        for table in _TABLES:
            database.execute_sql(f"DELETE FROM saved_{table}")
            database.execute_sql(f"INSERT INTO saved_{table} SELECT * FROM {table}")

    @precondition(lambda self: self.backup is not None)
    @rule()
    def restore(self) -> None:
        """The records of a topic that does not exist any more are lost with what PostgreSQL had of them."""
        assert self.backup is not None
        self.stored = set(self.backup)
        for table in _TABLES:
            database.execute_sql(f"DELETE FROM {table}")
            database.execute_sql(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM saved_{table}")
        database.execute_sql("SELECT setval('source_id_seq', (SELECT max(id) FROM source))")

    def teardown(self) -> None:
        """All is well again: what is in flight is stored, what is missing is read, and each record is there once."""
        self.rebalance()
        while self.in_flight:
            self.attempt(0, "reported")
        self.rebalance()
        while self.reading < len(self.log):
            self.hand_over(7)
            self.attempt(0, "reported")
        expected = self.stored | set(self.log)
        places = Counter(map(tuple, database.execute_sql(_PLACES).fetchall()))
        assert max(places.values(), default=1) == 1, "nothing is stored twice"
        assert places.keys() <= {_place(record) for record in expected}
        messages = dict(database.execute_sql("SELECT id::text, payload->>'n' FROM message").fetchall())
        for record in expected:
            own = dict(record.headers or ()).get("message-id", b"")
            same = own and record.value == b'{"n": %s}' % messages.get((own or b"").decode(), "").encode()
            assert _place(record) in places or same, record

    def _source(self) -> Source:
        return Source("topic", f"id-{self.noticed}", 0)


_PLACES = """
    SELECT "offset", produced_at FROM message UNION ALL SELECT "offset", produced_at FROM dead_letter
"""


def _place(record: Record) -> tuple[int, datetime]:
    return record.offset, datetime.fromtimestamp(record.timestamp / 1000, UTC)


def test_each_record_is_stored_once_in_any_order_of_events(tables: World) -> None:
    several = hypothesis.settings(max_examples=60, stateful_step_count=50, deadline=None, derandomize=True)
    with database.connection_context():
        for table in _TABLES:
            database.execute_sql(f"CREATE TABLE saved_{table} AS TABLE {table}")
        run_state_machine_as_test(Promise, settings=several)
