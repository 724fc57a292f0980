"""Partitions that the group does not read, because too many of their records became dead letters."""

from bridge.backpressure import Backpressure
from bridge.batches import Batcher
from bridge.kafka.types import ConsumedRecord, Consumer, TopicPartition
from bridge.reporter import Reporter
from tasks.config.settings import Settings
from tasks.observability import events
from tasks.share_limit import ShareLimit


class Quarantine:
    """Quarantines a partition for the whole group, beyond a restart, until an operator or a higher limit releases it.

    `backpressure` counts how long assigned partitions were quarantined; the bridge reads the others meanwhile.
    """

    def __init__(
        self,
        settings: Settings,
        consumer: Consumer,
        batcher: Batcher[TopicPartition, ConsumedRecord],
        reporter: Reporter,
    ) -> None:
        self.partitions: frozenset[TopicPartition] = frozenset()
        self.backpressure = Backpressure()
        self._limit: ShareLimit[TopicPartition] = ShareLimit(settings.dead_letter_limit_percent)
        self._consumer = consumer
        self._batcher = batcher
        self._reporter = reporter

    def count(self, partition: TopicPartition, records: int, dead: int) -> None:
        """Count a stored batch; quarantine its partition if it now exceeds the limit."""
        if not self._limit.add(partition, records, dead):
            return
        reason = f"{self._limit.share(partition):.0%} of its recent records became dead letters"
        self._limit.forget(partition)
        self._reporter.quarantine(partition, reason)
        self.apply(self.partitions | {partition})
        events.emit(
            "partition.quarantined",
            topic=partition.topic,
            partition=partition.partition,
            reason=reason,
            release=f"python -m bootstrap dead-letters release --topic {partition.topic}",
        )

    def update(self, now: float) -> None:
        """Apply what PostgreSQL says about quarantined partitions, once it is known."""
        mine = self._consumer.assignment() & self.partitions
        self.backpressure.update("dead_letter_limit" if mine else None, now)
        known = self._reporter.quarantined()
        if known is None or known == self.partitions:
            return
        for partition in self.partitions - known:
            events.emit("partition.released", topic=partition.topic, partition=partition.partition)
        self.apply(known)

    def apply(self, quarantined: frozenset[TopicPartition]) -> None:
        """Pause the assigned partitions that are quarantined, and resume those that are released."""
        assigned = self._consumer.assignment()
        for partition in assigned & (self.partitions - quarantined):
            self._batcher.resume(partition)
            self._consumer.resume([partition])
        for partition in assigned & quarantined:
            self._batcher.pause(partition)
            self._consumer.pause([partition])
        self.partitions = quarantined

    def forget(self, partition: TopicPartition) -> None:
        """The partition was revoked: its count restarts when it is assigned again."""
        self._limit.forget(partition)
