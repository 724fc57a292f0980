"""The metrics of the bridge: what it counts, and gauges of its current state."""

from collections.abc import Mapping, Sequence
from typing import get_args

from bridge.backpressure import Backpressure, Reason
from bridge.batches import Batcher
from bridge.handover import Flight, Handover
from bridge.kafka.topic_watch import TopicWatch
from bridge.kafka.types import ConsumedRecord, Consumer, TopicPartition
from bridge.quarantine import Quarantine
from tasks.observability import metrics


def consumed(polled: Mapping[TopicPartition, Sequence[ConsumedRecord]]) -> None:
    """Count the records of a poll."""
    for partition, records in polled.items():
        metrics.CONSUMED.add(len(records), partition.topic)


def stored(flight: Flight, now: float) -> None:
    """Count a stored batch."""
    topic = flight.partition.topic
    metrics.BATCH_RECORDS.observe(flight.claim.records, topic)
    metrics.BATCH_BYTES.observe(len(flight.packed), topic)
    if flight.handed_at is not None:
        metrics.BATCH_SECONDS.observe(now - flight.handed_at, topic)


class Gauges:
    """Gauges of backpressure, batches in flight, lag and quarantined partitions."""

    def __init__(
        self,
        consumer: Consumer,
        topic_watch: TopicWatch,
        handover: Handover,
        batcher: Batcher[TopicPartition, ConsumedRecord],
    ) -> None:
        self._consumer = consumer
        self._handover = handover
        self._batcher = batcher
        self._topic_watch = topic_watch
        self._seconds: dict[str, float] = {}
        self._shown: set[TopicPartition] = set()

    def update(self, backpressure: Backpressure, quarantine: Quarantine, now: float) -> None:
        """Set all gauges; called a few times a second."""
        metrics.IN_FLIGHT.set(len(self._handover))
        metrics.IN_FLIGHT_BYTES.set(self._handover.size())
        for reason in get_args(Reason):
            metrics.BACKPRESSURE.set(reason in (backpressure.reason, quarantine.backpressure.reason), reason)
        for reason, seconds in (backpressure.seconds(now) | quarantine.backpressure.seconds(now)).items():
            metrics.BACKPRESSURE_SECONDS.add(max(0.0, seconds - self._seconds.get(reason, 0.0)), reason)
            self._seconds[reason] = seconds
        assigned = self._consumer.assignment()
        metrics.QUARANTINED.set(len(assigned & quarantine.partitions))
        for partition in self._shown - assigned:  # another bridge shows them now
            metrics.LAG.set(0, partition.topic, str(partition.partition))
        self._shown = set(assigned)
        for partition in assigned:
            lag = self._lag(partition)
            if lag is not None:
                metrics.LAG.set(lag, partition.topic, str(partition.partition))

    def _lag(self, partition: TopicPartition) -> int | None:
        """Records that are not stored yet, as far as known; None if nothing is known."""
        end = self._topic_watch.snapshot.ends.get(partition)
        position = self._topic_watch.position(self._consumer, partition)
        if end is None or position is None:
            return None
        unstored = [flight.claim.first_offset for flight in self._handover.of([partition])]
        waiting = self._batcher.first(partition)
        if waiting is not None:
            unstored.append(waiting)
        return max(0, max(end, position) - min(unstored, default=position))
