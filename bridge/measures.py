"""What the bridge counts, and the gauges that show how it does at the moment."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from bridge.batches import Batcher
from bridge.ends import Ends
from bridge.handover import Flight, Handover
from bridge.holding import Holding, Reason
from bridge.stops import Stops
from tasks import metrics


def consumed(polled: Mapping[TopicPartition, Sequence[Any]]) -> None:
    """Count what a poll returned."""
    for partition, records in polled.items():
        metrics.CONSUMED.add(len(records), partition.topic)


def stored(flight: Flight, now: float) -> None:
    """Count a batch that is stored."""
    topic = flight.partition.topic
    metrics.BATCH_RECORDS.observe(flight.claim.records, topic)
    metrics.BATCH_BYTES.observe(len(flight.packed), topic)
    if flight.handed_at is not None:
        metrics.BATCH_SECONDS.observe(now - flight.handed_at, topic)


class Gauges:
    """Shows holding, in-flight batches, lag and stopped partitions; to be told a few times a second."""

    def __init__(
        self, consumer: KafkaConsumer, ends: Ends, handover: Handover, batcher: Batcher[TopicPartition, Any]
    ) -> None:
        self._consumer = consumer
        self._handover = handover
        self._batcher = batcher
        self._ends = ends
        self._seconds: dict[str, float] = {}
        self._shown: set[TopicPartition] = set()

    def tell(self, holding: Holding, stops: Stops, now: float) -> None:
        """Show all of it as it is now."""
        metrics.IN_FLIGHT.set(len(self._handover))
        metrics.IN_FLIGHT_BYTES.set(self._handover.size())
        for reason in get_args(Reason):
            metrics.HOLDING.set(reason in (holding.reason, stops.holding.reason), reason)
        for reason, seconds in (holding.seconds(now) | stops.holding.seconds(now)).items():
            metrics.HELD_SECONDS.add(max(0.0, seconds - self._seconds.get(reason, 0.0)), reason)
            self._seconds[reason] = seconds
        ours = self._consumer.assignment()
        metrics.STOPPED.set(len(ours & stops.partitions))
        for partition in self._shown - ours:  # another bridge shows them now
            metrics.LAG.set(0, partition.topic, str(partition.partition))
        self._shown = set(ours)
        ends = self._ends.of(ours)
        for partition in ours:
            lag = self._lag(partition, ends.get(partition, 0))
            if lag is not None:
                metrics.LAG.set(lag, partition.topic, str(partition.partition))

    def _lag(self, partition: TopicPartition, end: int) -> int | None:
        """Records that are not known to be stored; None before the first fetch."""
        read: int | None = self._consumer.highwater(partition)  # the end as the last fetch said
        if read is None:
            return None
        unstored = [flight.claim.first_offset for flight in self._handover.of([partition])]
        waiting = self._batcher.first(partition)
        if waiting is not None:
            unstored.append(waiting)
        return max(0, max(read, end) - min(unstored, default=self._consumer.position(partition)))
