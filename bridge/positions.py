"""Where each partition is read from, and what operators do to topics meanwhile: delete, recreate, truncate.

PostgreSQL says where (tasks/store/spans.py), also after it was restored or has failed over; Kafka says what changed.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from bridge.batches import Batcher
from bridge.continuity import Continuity
from bridge.kafka.topic_watch import Snapshot, TopicWatch
from bridge.kafka.types import Committed, ConsumedRecord, Consumer, TopicPartition, names
from bridge.progress import Progress
from bridge.reporter import Reporter
from bridge.sources import Question
from tasks.claim_check import Claim
from tasks.observability import events, metrics
from tasks.store.lost_records import Loss
from tasks.store.spans import Source

_LATE = "PostgreSQL has not told how far the partitions are stored"
_LATE_SECONDS = 2.0
_MISSING_SNAPSHOTS = 2  # a topic that was just created, or a broker that has just started, may be missing in one


class Positions:
    """Compares the topics with what was read of them and stored, says what changed, and begins partitions where due."""

    def __init__(
        self,
        topics: Sequence[str],
        watch: TopicWatch,
        reporter: Reporter,
        consumer: Consumer,
        batcher: Batcher[TopicPartition, ConsumedRecord],
        progress: Progress[TopicPartition],
    ) -> None:
        self._topics = topics
        self._watch = watch
        self._reporter = reporter
        self._sources = reporter.sources
        self._consumer = consumer
        self._batcher = batcher
        self._progress = progress
        self._continuity: Continuity[TopicPartition] = Continuity()
        self._ids: dict[str, str] = {}
        self._absent: dict[str, int] = {}  # in how many snapshots a topic was missing
        self._begins: dict[TopicPartition, Question] = {}  # of assigned partitions that Kafka has told about
        self._starts: dict[TopicPartition, int] = {}  # where the consumer had begun to read by itself
        self._begun: set[TopicPartition] = set()  # PostgreSQL has told about these, too
        self._claimed: dict[TopicPartition, int] = {}  # what lies before was stored, said Kafka or workers
        self._late_at: float | None = None  # None: all partitions that Kafka has told about have begun
        self._seen = watch.snapshot
        self._answered = self._sources.answer

    def assigned(self, partitions: Collection[TopicPartition], now: float) -> None:
        """These are ours. Where they are read from is not known before Kafka and PostgreSQL have told."""
        for partition in partitions:
            self._continuity.assign(partition, now)

    def forget(self, partition: TopicPartition) -> None:
        """Forget a revoked partition."""
        self._continuity.forget(partition)
        self._begun.discard(partition)
        for kept in (self._begins, self._starts, self._claimed):
            kept.pop(partition, None)

    def is_begun(self, partition: TopicPartition) -> bool:
        """Whether it is known where the partition is read from, before which none of its records may be handed over."""
        return partition in self._begun

    def failure(self, now: float) -> str:
        """What is missing if PostgreSQL should have told by now how far partitions are stored; otherwise empty."""
        return _LATE if self._late_at is not None and now > self._late_at else ""

    def next_span(self, partition: TopicPartition) -> tuple[str, int]:
        """The id of a partition's topic, and where its next batch begins; once it has begun."""
        return self._begins[partition].source.topic_id, self._progress.handed_over_until(partition)

    def failed(self, claim: Claim) -> None:
        """Take note of a batch that could not be stored yet."""
        partition = TopicPartition(claim.topic, claim.partition)
        source = Source(claim.topic, claim.topic_id, claim.partition)
        if partition not in self._begins or self._begins[partition].source != source:
            self._sources.register_gone(source, claim.begin)

    def read(self, polled: Mapping[TopicPartition, Sequence[ConsumedRecord]], now: float) -> None:
        """Take note of records as a poll returned them."""
        for partition, records in polled.items():
            expected = self._continuity.read(partition, records, now)
            place = {"topic": partition.topic, "partition": partition.partition, "offset": records[0].offset}
            if expected is not None:
                events.emit("partition.rewound", **place, expected=expected)
            if partition in self._claimed and partition in self._begun:
                claimed = self._claimed.pop(partition)
                if records[0].offset < claimed:
                    events.emit("records.missing", **place, stored_until=claimed)

    def to_commit(self) -> dict[TopicPartition, Committed]:
        """What may be committed and is not yet, with the ids of the topics; nothing of a topic that does not exist."""
        return {
            partition: Committed(offset, self._ids.get(partition.topic, ""))
            for partition, offset in self._progress.to_commit().items()
            if partition in self._begun and not self._absent.get(partition.topic)
        }

    def has_news(self) -> bool:
        """Whether Kafka or PostgreSQL has told something since the last update."""
        return self._watch.snapshot is not self._seen or self._sources.answer is not self._answered

    def update(self, reads: bool, now: float) -> None:
        """Compare with what Kafka and PostgreSQL have told. `reads` is False while the bridge reads nothing."""
        assigned = self._consumer.assignment()
        self._watch.watch(assigned)
        for partition in assigned & self._begun:
            self._pass_what_is_no_record(partition, now)
        snapshot, self._seen, is_new = (
            self._watch.snapshot,
            self._watch.snapshot,
            self._watch.snapshot is not self._seen,
        )
        compared = [p for p in snapshot.first.keys() & assigned if snapshot.asked_at >= self._continuity.since(p)]
        if is_new:
            self._say_what_is_missing(snapshot)
            self._restart([p for p in compared if self._recreated(p, snapshot)])
            self._ids |= snapshot.topic_ids
            for partition in compared:
                self._plan(partition, snapshot)
        self._begin_where_stored()
        self._sources.ask({p: q._replace(stored=self._progress.stored_until(p)) for p, q in self._begins.items()})
        if self._begins.keys() <= self._begun:
            self._late_at = None
        elif self._late_at is None:
            self._late_at = now + _LATE_SECONDS
        if is_new:
            paused = self._consumer.paused()
            for partition in compared:
                if partition in self._begun:
                    self._find_losses(partition, snapshot, reads and partition not in paused)

    def _pass_what_is_no_record(self, partition: TopicPartition, now: float) -> None:
        """Make the marks of transactions committable, or a partition that ends with them would have a lag for ever."""
        position = self._consumer.position(partition)
        if position is None or self._batcher.first(partition) is not None:
            return
        self._continuity.passed(partition, position, now)
        self._progress.reached(partition, position)

    def _say_what_is_missing(self, snapshot: Snapshot) -> None:
        for topic in self._topics:
            if topic not in snapshot.topic_ids:
                self._absent[topic] = self._absent.get(topic, 0) + 1
                if self._absent[topic] == _MISSING_SNAPSHOTS:
                    events.emit("topic.missing", topic=topic)
            elif self._absent.pop(topic, 0) >= _MISSING_SNAPSHOTS:
                events.emit("topic.available", topic=topic)

    def _recreated(self, partition: TopicPartition, snapshot: Snapshot) -> bool:
        """Whether the partition's topic is another one than that which was read, here or before it was assigned."""
        known = self._ids.get(partition.topic, "")
        if partition not in self._begins and partition in snapshot.committed:
            known = snapshot.committed[partition].topic_id
        return known not in ("", snapshot.topic_ids[partition.topic])

    def _restart(self, partitions: Sequence[TopicPartition]) -> None:
        """Drop what was read of recreated topics. Batches in flight are stored, and not committed."""
        for topic in sorted({partition.topic for partition in partitions}):
            restarted = [partition for partition in partitions if partition.topic == topic]
            dropped = sum(self._batcher.clear(partition) for partition in restarted)
            for partition in restarted:
                self._progress.forget(partition)
                self._begun.discard(partition)
                for kept in (self._begins, self._claimed):
                    kept.pop(partition, None)
                self._starts[partition] = -1  # anywhere but where it begins
            events.emit("topic.recreated", topic=topic, partitions=names(restarted), dropped_records=dropped)

    def _plan(self, partition: TopicPartition, snapshot: Snapshot) -> None:
        """Where a partition begins if PostgreSQL does not know it: where somebody else committed, else at its start.

        An offset with the topic's id was committed by a bridge, so that PostgreSQL has lost what it knew.
        """
        if partition in self._begins:
            return
        committed, first = snapshot.committed.get(partition), snapshot.first[partition]
        topic_id = snapshot.topic_ids[partition.topic]
        set_by_others = committed is not None and not committed.topic_id
        begin = committed.offset if committed is not None and set_by_others else first
        self._begins[partition] = Question(Source(partition.topic, topic_id, partition.partition), begin, None)
        is_of_this_topic = committed is not None and committed.topic_id in ("", topic_id)
        self._starts.setdefault(partition, committed.offset if committed is not None else first)
        if committed is not None and is_of_this_topic:
            self._claimed[partition] = committed.offset

    def _begin_where_stored(self) -> None:
        """Begin partitions of which PostgreSQL has told, and begin again where it has less than workers had stored."""
        answer, now_stored = self._sources.answer, self._progress.stored_until
        self._answered = answer
        for partition, question in answer.questions.items():
            current = self._begins.get(partition)
            stored_until = answer.stored_until.get(question.source)
            if current is None or current.source != question.source or stored_until is None:
                continue
            if partition not in self._begun:
                self._begin(partition, stored_until, self._starts[partition])
            elif question.stored is not None and stored_until < question.stored <= (now_stored(partition) or 0):
                self._claimed[partition] = question.stored
                self._begin(partition, stored_until, question.stored)

    def _begin(self, partition: TopicPartition, offset: int, start: int) -> None:
        """Read on from where all is stored. `start` is where the consumer reads otherwise."""
        if offset != start:
            if not self._consumer.seek(partition, offset):
                return
            self._batcher.clear(partition)
            self._continuity.restart(partition, offset)
        else:
            self._continuity.begin(partition, offset)
        self._progress.begin(partition, offset)
        self._begun.add(partition)

    def _find_losses(self, partition: TopicPartition, snapshot: Snapshot, may_return: bool) -> None:
        first = snapshot.first[partition]
        for lost, after in self._continuity.losses(partition, first, snapshot.asked_at, may_return):
            loss = Loss(partition.topic, partition.partition, lost, after - 1, datetime.now(UTC))
            metrics.LOST.add(after - lost, partition.topic)
            events.emit(
                "records.lost",
                topic=loss.topic,
                partition=loss.partition,
                first_offset=loss.first_offset,
                last_offset=loss.last_offset,
                offsets=after - lost,
            )
            self._reporter.lose(loss, snapshot.topic_ids[partition.topic])
