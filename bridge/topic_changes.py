"""What operators do to topics while a bridge reads them: delete, recreate, truncate, let retention overtake it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from bridge.batches import Batcher
from bridge.continuity import Continuity
from bridge.kafka.topic_watch import Snapshot, TopicWatch
from bridge.kafka.types import Committed, ConsumedRecord, Consumer, TopicPartition, names
from bridge.progress import Progress
from tasks.observability import events, metrics
from tasks.store.lost_records import Loss

_MISSING_SNAPSHOTS = 2  # a topic that was just created, or a broker that has just started, may be missing in one


class TopicChanges:
    """Compares the topics with what was read of them, says what changed, and begins recreated topics at their start."""

    def __init__(
        self,
        topics: Sequence[str],
        watch: TopicWatch,
        consumer: Consumer,
        batcher: Batcher[TopicPartition, ConsumedRecord],
        progress: Progress[TopicPartition],
        report_loss: Callable[[Loss], None],
    ) -> None:
        self._topics = topics
        self._watch = watch
        self._consumer = consumer
        self._batcher = batcher
        self._progress = progress
        self._report_loss = report_loss
        self._continuity: Continuity[TopicPartition] = Continuity()
        self._ids: dict[str, str] = {}
        self._absent: dict[str, int] = {}  # in how many snapshots a topic was missing
        self._seen = watch.snapshot

    def assigned(self, partition: TopicPartition, now: float) -> None:
        """The partition is ours; it is read from where the group had ended, which the next snapshot says."""
        self._continuity.assign(partition, now)

    def forget(self, partition: TopicPartition) -> None:
        """Forget a revoked partition."""
        self._continuity.forget(partition)

    def read(self, polled: Mapping[TopicPartition, Sequence[ConsumedRecord]], now: float) -> None:
        """Take note of records as a poll returned them."""
        for partition, records in polled.items():
            expected = self._continuity.read(partition, records, now)
            if expected is not None:
                events.emit(
                    "partition.rewound",
                    topic=partition.topic,
                    partition=partition.partition,
                    offset=records[0].offset,
                    expected=expected,
                )

    def to_commit(self) -> dict[TopicPartition, Committed]:
        """What may be committed and is not yet, with the ids of the topics.

        Not before it is known where the group had ended, and nothing of a topic that does not exist.
        """
        return {
            partition: Committed(offset, self._ids.get(partition.topic, ""))
            for partition, offset in self._progress.to_commit().items()
            if self._continuity.is_known(partition) and not self._absent.get(partition.topic)
        }

    def update(self, reads: bool, now: float) -> None:
        """Compare with the newest snapshot, a few times a second. `reads` is False while the bridge reads nothing."""
        assigned = self._consumer.assignment()
        self._watch.watch(assigned)
        for partition in assigned:
            self._pass_what_is_no_record(partition, now)
        snapshot = self._watch.snapshot
        if snapshot is self._seen:
            return
        self._seen = snapshot
        self._say_what_is_missing(snapshot)
        compared = [p for p in snapshot.first.keys() & assigned if snapshot.asked_at >= self._continuity.since(p)]
        self._restart([p for p in compared if self._recreated(p, snapshot)], snapshot)
        self._ids |= snapshot.topic_ids
        paused = self._consumer.paused()
        for partition in compared:
            if not self._continuity.is_known(partition):
                committed = snapshot.committed.get(partition)
                self._continuity.begin(partition, None if committed is None else committed.offset)
            may_return = reads and partition not in paused
            first = snapshot.first[partition]
            for lost in self._continuity.losses(partition, first, snapshot.asked_at, may_return):
                self._lose(partition, *lost)

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
        if not self._continuity.is_known(partition) and partition in snapshot.committed:
            known = snapshot.committed[partition].topic_id
        return known not in ("", snapshot.topic_ids[partition.topic])

    def _restart(self, partitions: Sequence[TopicPartition], snapshot: Snapshot) -> None:
        """Read partitions of recreated topics from their start. Batches in flight are stored, and not committed."""
        for topic in sorted({partition.topic for partition in partitions}):
            restarted = [partition for partition in partitions if partition.topic == topic]
            dropped = 0
            for partition in restarted:
                dropped += self._batcher.clear(partition)
                self._progress.forget(partition)
                self._consumer.seek(partition, snapshot.first[partition])
                self._continuity.restart(partition, snapshot.first[partition])
            events.emit("topic.recreated", topic=topic, partitions=names(restarted), dropped_records=dropped)

    def _lose(self, partition: TopicPartition, first: int, next_offset: int) -> None:
        loss = Loss(partition.topic, partition.partition, first, next_offset - 1, datetime.now(UTC))
        metrics.LOST.add(next_offset - first, partition.topic)
        events.emit(
            "records.lost",
            topic=loss.topic,
            partition=loss.partition,
            first_offset=loss.first_offset,
            last_offset=loss.last_offset,
            offsets=next_offset - first,
        )
        self._report_loss(loss)
