"""What the bridge counts, and the gauges that show how it does at the moment."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from bridge.ends import Ends
from bridge.handover import Flight, Handover
from bridge.holding import Holding, Reason
from tasks import metrics
from tasks.settings import Settings


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

    def __init__(self, settings: Settings) -> None:
        self._ends = Ends(settings)
        self._seconds: dict[str, float] = {}
        self._shown: set[TopicPartition] = set()

    def start(self) -> None:
        """Begin to ask Kafka how far its partitions reach, which has to be told once."""
        self._ends.start()

    def tell(
        self,
        consumer: KafkaConsumer,
        handover: Handover,
        holding: Holding,
        stopped: frozenset[TopicPartition],
        now: float,
    ) -> None:
        """Show all of it as it is now."""
        metrics.IN_FLIGHT.set(len(handover))
        metrics.IN_FLIGHT_BYTES.set(handover.size())
        self._held(holding, now)
        self._lag(consumer, handover, stopped)

    def _held(self, holding: Holding, now: float) -> None:
        for reason in get_args(Reason):
            metrics.HOLDING.set(reason == holding.reason, reason)
        for reason, seconds in holding.seconds(now).items():
            metrics.HELD_SECONDS.add(max(0.0, seconds - self._seconds.get(reason, 0.0)), reason)
            self._seconds[reason] = seconds

    def _lag(self, consumer: KafkaConsumer, handover: Handover, stopped: frozenset[TopicPartition]) -> None:
        ours = consumer.assignment()
        metrics.STOPPED.set(len(ours & stopped))
        for partition in self._shown - ours:  # another bridge shows them now
            metrics.LAG.set(0, partition.topic, str(partition.partition))
        self._shown = set(ours)
        ends = self._ends.of(ours)
        for partition in ours:
            read = consumer.highwater(partition)  # the end as the last fetch said; None before the first
            if read is not None:
                end = max(read, ends.get(partition, 0))
                open_ = (flight.claim.first_offset for flight in handover.of([partition]))
                reached = min(open_, default=consumer.position(partition))
                metrics.LAG.set(max(0, end - reached), partition.topic, str(partition.partition))
