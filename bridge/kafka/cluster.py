"""Topics, offsets and consumer groups as Kafka reports them, by confluent-kafka, whichever client reads and writes."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as ClientPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, OffsetSpec

from bridge.kafka.connection import COORDINATOR_MS, configuration, explained, translated
from bridge.kafka.types import Committed, TopicPartition
from tasks.config.settings import Settings
from tasks.observability import events

T = TypeVar("T")
_MIN_INSYNC = "min.insync.replicas"
_RESPOND_SECONDS = 2.0
_REQUEST_SECONDS = 5.0
_CREATE_SECONDS = 30.0
_COORDINATOR_MOVES = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
_NO_SUCH_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


@dataclass(frozen=True)
class Topic:
    """A topic as the broker describes it. Its id is another one when it is deleted and created again (KIP-516)."""

    name: str
    partitions: int
    replication_factor: int
    id: str = ""
    min_insync_replicas: int | None = None  # None: not known


class Cluster:
    """Requests to Kafka, which any thread may make. They raise Unavailable or AccessDenied, within some seconds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        options = {**configuration(settings), "allow.auto.create.topics": False}
        self._client = AdminClient(options, logger=events.library_logger("librdkafka"))

    def respond(self, seconds: float = _RESPOND_SECONDS) -> None:
        """Return once a broker responds."""
        with translated(self._settings):
            self._client.list_topics(timeout=seconds)

    def topics(self, names: Collection[str]) -> list[Topic]:
        """Those of `names` that exist."""
        if not names:
            return []
        with translated(self._settings):
            asked = self._client.describe_topics(TopicCollection(list(names)), request_timeout=_REQUEST_SECONDS)
            return [_topic(found) for found in _existing(asked).values()]

    def min_insync_replicas(self, topic: str) -> int | None:
        """How many replicas must have a record before it is acknowledged; None if we may not know."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        asked = self._client.describe_configs([resource], request_timeout=_REQUEST_SECONDS)
        try:
            return int(asked[resource].result(_REQUEST_SECONDS)[_MIN_INSYNC].value)
        except KafkaException:  # it is another right than that to describe a topic
            return None

    def create(self, topic: Topic) -> None:
        """Create a topic; one that exists is left as it is. Raises KafkaException if Kafka refuses it."""
        configuration = {} if topic.min_insync_replicas is None else {_MIN_INSYNC: str(topic.min_insync_replicas)}
        new = NewTopic(topic.name, topic.partitions, topic.replication_factor, config=configuration)
        try:
            self._client.create_topics([new], request_timeout=_CREATE_SECONDS)[topic.name].result(_CREATE_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def extend(self, topic: str, partitions: int) -> None:
        """Add partitions to a topic until it has `partitions`. Raises KafkaException if Kafka refuses that."""
        new = NewPartitions(topic, partitions)
        self._client.create_partitions([new], request_timeout=_CREATE_SECONDS)[topic].result(_CREATE_SECONDS)

    def first_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset of each partition's first record that Kafka still has; without partitions that do not exist."""
        return self._offsets(partitions, OffsetSpec.earliest())

    def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset after the last record that is not part of an open transaction; as `first_offsets`."""
        return self._offsets(partitions, OffsetSpec.latest())

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Committed]:
        """What the consumer group has committed; without partitions in which it has committed nothing."""
        asked = [ClientPartition(*partition) for partition in partitions]
        if not asked:
            return {}
        with translated(self._settings):
            found = _patiently(lambda: self._consumer.committed(asked, timeout=_REQUEST_SECONDS))
        for error in (entry.error for entry in found if entry.error is not None):
            raise explained(self._settings, error)
        return {
            TopicPartition(entry.topic, entry.partition): Committed(entry.offset, entry.metadata or "")
            for entry in found
            if entry.offset >= 0
        }

    def timestamps(self, places: Mapping[TopicPartition, int], seconds: float) -> dict[TopicPartition, int]:
        """The timestamp of the first record at or after each offset, in milliseconds; as far as read in time."""
        self._consumer.assign([ClientPartition(*partition, offset) for partition, offset in places.items()])
        found: dict[TopicPartition, int] = {}
        deadline = time.monotonic() + seconds
        while len(found) < len(places) and time.monotonic() < deadline:
            for message in self._consumer.consume(1000, 0.05):
                if message.error() is None:
                    found.setdefault(TopicPartition(message.topic(), message.partition()), message.timestamp()[1])
        self._consumer.unassign()
        return found

    def close(self) -> None:
        """End the connections."""
        if "_consumer" in self.__dict__:
            self._consumer.close()

    @cached_property
    def _consumer(self) -> Consumer:
        """A consumer that never joins the group. The admin client crashes when a coordinator changes (confluent-kafka
        2.16.1, `list_consumer_group_offsets`)."""
        options = {
            **configuration(self._settings),
            "group.id": self._settings.kafka_group_id,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "coordinator.query.interval.ms": COORDINATOR_MS,
            "fetch.message.max.bytes": 1 << 16,  # of each partition only the first record is needed
            "queued.max.messages.kbytes": 1 << 10,
        }
        return Consumer(options, logger=events.library_logger("librdkafka"))

    def _offsets(self, partitions: Iterable[TopicPartition], spec: OffsetSpec) -> dict[TopicPartition, int]:
        wanted = {ClientPartition(*partition): spec for partition in partitions}
        if not wanted:
            return {}
        with translated(self._settings):
            asked = self._client.list_offsets(
                wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_REQUEST_SECONDS
            )
            found = _existing(asked)
        return {TopicPartition(entry.topic, entry.partition): int(result.offset) for entry, result in found.items()}


def _patiently(request: Callable[[], T]) -> T:
    """Repeat a request for some seconds while Kafka looks for the coordinator of a group, as after a start."""
    deadline = time.monotonic() + _REQUEST_SECONDS
    while True:
        try:
            return request()
        except KafkaException as error:
            if error.args[0].code() not in _COORDINATOR_MOVES or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _existing(asked: Mapping[Any, "Future[Any]"]) -> dict[Any, Any]:
    """The results, without those of topics and partitions that do not exist."""
    found = {}
    for key, future in asked.items():
        try:
            found[key] = future.result(_REQUEST_SECONDS)
        except KafkaException as error:
            if error.args[0].code() not in _NO_SUCH_TOPIC:
                raise
    return found


def _topic(description: Any) -> Topic:
    partitions: Sequence[Any] = description.partitions
    replicas = min((len(partition.replicas) for partition in partitions), default=0)
    return Topic(description.name, len(partitions), replicas, str(description.topic_id))
