"""How far the consumer group is behind, partition by partition: what Kafka holds, what is committed, and how old."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from bridge.clients import new_admin, new_asker
from bridge.single_flight import SingleFlight
from tasks.errors import Unavailable
from tasks.settings import Settings

_FRESH_SECONDS = 1.0  # so many askers cost one question a second
_READ_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0
_NONE = -1  # what Kafka says of a group that has committed nothing


@dataclass(frozen=True)
class Lag:
    """A partition: its first and next offset, the group's, the records between, and the age of the oldest of them.

    `seconds` is None when nothing is left, or when the record could not be read in time.
    """

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    committed: int | None
    records: int
    seconds: float | None


class Lags:
    """Asks Kafka with clients of its own, made at the first question, for any number of threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._flight = SingleFlight(self._ask, _FRESH_SECONDS)
        self._clients: tuple[KafkaConsumer, KafkaAdminClient] | None = None

    def now(self) -> list[Lag]:
        """The lag of every partition of the topics in the settings, as it was when last asked for.

        That is a second ago at most. Raises Unavailable, within 5 seconds.
        """
        try:
            return self._flight.begin().result(_PATIENCE_SECONDS)
        except TimeoutError:
            raise Unavailable("Kafka takes too long to say where its partitions end") from None

    def _ask(self) -> list[Lag]:
        try:
            if self._clients is None:
                self._clients = new_asker(self._settings), new_admin(self._settings)
            consumer, admin = self._clients
            partitions = [
                TopicPartition(topic, number)
                for topic in self._settings.kafka_topics
                for number in sorted(consumer.partitions_for_topic(topic) or ())
            ]
            first, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
            committed = _committed(admin, self._settings.kafka_group_id)
            return list(_lags(consumer, partitions, first, ends, committed))
        except KafkaError as error:
            self._close()
            raise Unavailable(f"Kafka does not say where its partitions end: {error}") from error

    def _close(self) -> None:
        for client in self._clients or ():
            client.close()
        self._clients = None


def _lags(
    consumer: KafkaConsumer,
    partitions: Sequence[TopicPartition],
    first: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    committed: Mapping[TopicPartition, int],
) -> Iterable[Lag]:
    # What was never committed is read from the beginning; what retention deleted is not read any more.
    begins = {p: max(committed.get(p, first[p]), first[p]) for p in partitions}
    made = _oldest(consumer, {p: begins[p] for p in partitions if begins[p] < ends[p]})
    now = datetime.now(UTC).timestamp()
    for p in partitions:
        seconds = max(0.0, now - made[p] / 1000) if p in made else None
        records = max(0, ends[p] - begins[p])
        yield Lag(p.topic, p.partition, first[p], ends[p], committed.get(p), records, seconds)


def _oldest(consumer: KafkaConsumer, begins: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """When the first record at or after each offset was made, milliseconds since 1970; as far as read in time."""
    made: dict[TopicPartition, int] = {}
    consumer.assign(list(begins))
    for partition, offset in begins.items():
        consumer.seek(partition, offset)
    deadline = time.monotonic() + _READ_SECONDS
    while len(made) < len(begins) and time.monotonic() < deadline:
        for partition, records in consumer.poll(timeout_ms=100).items():
            made.setdefault(partition, records[0].timestamp)
    consumer.assign([])
    return made


def _committed(admin: KafkaAdminClient, group: str) -> dict[TopicPartition, int]:
    if hasattr(admin, "list_group_offsets"):  # kafka-python 3
        found = admin.list_group_offsets({group: None})[group]
    else:
        found = admin.list_consumer_group_offsets(group)
    return {partition: said.offset for partition, said in found.items() if said.offset != _NONE}
