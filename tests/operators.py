"""What operators do to topics while others use them, by Kafka's admin requests."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

from tests.waiting import wait_until

_SECONDS = 30
_PASSING = {
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
}


class Operators:
    """Deletes, recreates, truncates, extends and configures the topics of one test."""

    variables: dict[str, str]
    topic: str

    def delete_topic(self, topic: str | None = None) -> None:
        """Delete a topic, and wait until it is gone."""
        name, admin = topic or self.topic, self._admin
        admin.delete_topics([name])[name].result(_SECONDS)
        wait_until(lambda: not _exists(admin, name), f"{name} is gone")

    def create_topic(self, topic: str | None = None, partitions: int | None = None, **configuration: str) -> None:
        """Create a topic, which may have been deleted a moment ago."""
        name, admin = topic or self.topic, self._admin
        count = partitions or int(self.variables["KAFKA_PARTITIONS"])
        new = NewTopic(name, count, int(self.variables.get("KAFKA_REPLICATION_FACTOR", 1)), config=configuration)
        wait_until(lambda: _create(admin, new), f"{name} is created")
        wait_until(lambda: _exists(admin, name), f"{name} is known")

    def recreate_topic(self, topic: str | None = None) -> None:
        """Delete a topic and create it again: its offsets begin at 0, and it has another id."""
        self.delete_topic(topic)
        self.create_topic(topic)

    def delete_records(self, before: Mapping[int, int], topic: str | None = None) -> None:
        """Delete the records before an offset, by partition, as retention does."""
        places = [TopicPartition(topic or self.topic, partition, offset) for partition, offset in before.items()]
        for future in self._admin.delete_records(places).values():
            future.result(_SECONDS)

    def add_partitions(self, count: int, topic: str | None = None) -> None:
        """Extend a topic to `count` partitions."""
        name = topic or self.topic
        self._admin.create_partitions([NewPartitions(name, count)])[name].result(_SECONDS)

    def configure_topic(self, **configuration: str) -> None:
        """Set options of the topic; dots are written as underscores."""
        entries = [
            ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for name, value in configuration.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.topic, incremental_configs=entries)
        self._admin.incremental_alter_configs([resource])[resource].result(_SECONDS)

    @cached_property
    def _admin(self) -> Any:
        """It must outlive its requests, which end with it."""
        return AdminClient({"bootstrap.servers": self.variables["KAFKA_BROKERS"], "log_level": 0})

    def ends(self, topic: str | None = None) -> dict[int, int]:
        """The end offset of each partition; waits for leaders that have just taken over and do not know it yet."""
        name, admin = topic or self.topic, self._admin
        return wait_until(lambda: _ends(admin, name), f"the leaders of {name} know its ends")


def _ends(admin: Any, name: str) -> dict[int, int]:
    """Empty while a leader does not know."""
    try:
        found = admin.describe_topics(TopicCollection([name]))[name].result(_SECONDS)
        places = {TopicPartition(name, partition.id): OffsetSpec.latest() for partition in found.partitions}
        asked = admin.list_offsets(places)
        return {place.partition: future.result(_SECONDS).offset for place, future in asked.items()}
    except KafkaException as error:
        if error.args[0].code() not in _PASSING:
            raise
        return {}


def _create(admin: Any, new: NewTopic) -> bool:
    try:
        admin.create_topics([new])[new.topic].result(_SECONDS)
    except KafkaException:  # the deleted one is not gone everywhere
        return False
    return True


def _exists(admin: Any, name: str) -> bool:
    try:
        admin.describe_topics(TopicCollection([name]))[name].result(_SECONDS)
    except KafkaException:
        return False
    return True
