"""Partitions that are read no more because too much of them went to dead_letter, until an operator says so."""

from typing import Any

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from bridge.batches import Batcher
from bridge.flood import Flood
from bridge.holding import Holding
from bridge.reporter import Reporter
from tasks import telemetry
from tasks.settings import Settings


class Stops:
    """Stops a flooded partition, for the whole group and beyond a restart, and lets released ones go on.

    `holding` counts how long partitions of ours were stopped; the bridge reads the others meanwhile.
    """

    def __init__(self, settings: Settings, batcher: Batcher[TopicPartition, Any], reporter: Reporter) -> None:
        self.partitions: frozenset[TopicPartition] = frozenset()
        self.holding = Holding()
        self._flood: Flood[TopicPartition] = Flood(settings.dead_letter_limit_percent)
        self._batcher = batcher
        self._reporter = reporter

    def count(self, consumer: KafkaConsumer, partition: TopicPartition, records: int, dead: int) -> None:
        """Count a stored batch, and stop its partition when it is one dead letter too many."""
        if not self._flood.add(partition, records, dead):
            return
        reason = f"{self._flood.share(partition):.0%} of its recent records went to dead_letter"
        self._flood.forget(partition)
        self._reporter.stop_partition(partition, reason)
        self.apply(consumer, self.partitions | {partition})
        how = f"python -m bootstrap dead-letters resume --topic {partition.topic}"
        telemetry.emit(
            "partition.stopped", topic=partition.topic, partition=partition.partition, reason=reason, go_on=how
        )

    def turn(self, consumer: KafkaConsumer, now: float) -> None:
        """Take over what PostgreSQL says of stopped partitions, when that is news."""
        self.holding.turn("dead_letter_flood" if consumer.assignment() & self.partitions else None, now)
        known = self._reporter.stopped()
        if known is None or known == self.partitions:
            return
        for partition in self.partitions - known:
            telemetry.emit("partition.released", topic=partition.topic, partition=partition.partition)
        self.apply(consumer, known)

    def apply(self, consumer: KafkaConsumer, stopped: frozenset[TopicPartition]) -> None:
        """Pause what is stopped and resume what is not any more, of the partitions that are ours."""
        ours = consumer.assignment()
        for partition in ours & (self.partitions - stopped):
            self._batcher.go_on(partition)
            consumer.resume(partition)
        for partition in ours & stopped:
            self._batcher.stop(partition)
            consumer.pause(partition)
        self.partitions = stopped

    def forget(self, partition: TopicPartition) -> None:
        """The partition is no longer ours: count it anew when it comes back."""
        self._flood.forget(partition)
