"""Topics as configured and as they are: what `init` creates, extends, and warns about."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from confluent_kafka import KafkaError, KafkaException

from bridge.kafka.cluster import Cluster, Topic
from bridge.kafka.connection import explained
from tasks.config.settings import Settings
from tasks.errors import BackendError, ConfigurationError

# With three replicas of which two must have a message, any broker may be lost, and messages are accepted meanwhile.
_REPLICAS, _MIN_INSYNC = 3, 2


@dataclass(frozen=True)
class Step:
    """A step for a topic, with a sentence. `keep` changes nothing; `warn` reports a difference that is kept."""

    action: Literal["create", "extend", "keep", "warn"]
    topic: str
    sentence: str


def plan(names: Sequence[str], partitions: int, replication_factor: int, existing: Sequence[Topic]) -> Iterator[Step]:
    """The steps from `existing` to the configuration. Partitions are never removed: Kafka cannot do that."""
    there = {topic.name: topic for topic in existing}
    for name in names:
        topic = there.get(name)
        if topic is None:
            yield Step(
                "create", name, f"topic {name}: {partitions} partitions, replication factor {replication_factor}"
            )
            continue
        if topic.partitions < partitions:
            yield Step("extend", name, f"topic {name}: from {topic.partitions} to {partitions} partitions")
        elif topic.partitions > partitions:
            yield Step("warn", name, f"topic {name} has {topic.partitions} partitions, not {partitions}; kept")
        else:
            yield Step("keep", name, f"topic {name}: {partitions} partitions")
        if topic.replication_factor != replication_factor:
            yield Step(
                "warn",
                name,
                f"topic {name} has replication factor {topic.replication_factor}, not {replication_factor}; kept",
            )
        if topic.replication_factor >= _REPLICAS and (topic.min_insync_replicas or _MIN_INSYNC) < _MIN_INSYNC:
            yield Step(
                "warn",
                name,
                f"topic {name} has min.insync.replicas {topic.min_insync_replicas}, not {_MIN_INSYNC}: a message that"
                " one broker acknowledged is lost with that broker; kept",
            )


def ensure(settings: Settings, check_only: bool) -> list[Step]:
    """Create and extend the configured topics; with `check_only` only return the steps.

    Raises Unavailable, AccessDenied, ConfigurationError.
    """
    cluster = Cluster(settings)
    cluster.respond()
    steps = list(
        plan(
            settings.consumed_topics,
            settings.kafka_partitions,
            settings.kafka_replication_factor,
            [
                replace(topic, min_insync_replicas=cluster.min_insync_replicas(topic.name))
                for topic in cluster.topics(settings.consumed_topics)
            ],
        )
    )
    if not check_only:
        try:
            for step in steps:
                _apply(cluster, step, settings)
        except KafkaException as error:
            raise _refusal(settings, error.args[0]) from error
    return steps


def missing(settings: Settings, names: Sequence[str]) -> list[str]:
    """Those of `names` that Kafka does not have. Raises Unavailable."""
    there = {topic.name for topic in Cluster(settings).topics(names)}
    return [name for name in names if name not in there]


def _apply(cluster: Cluster, step: Step, settings: Settings) -> None:
    if step.action == "create":
        replicas = settings.kafka_replication_factor
        min_insync = _MIN_INSYNC if replicas >= _REPLICAS else None
        cluster.create(Topic(step.topic, settings.kafka_partitions, replicas, min_insync_replicas=min_insync))
    elif step.action == "extend":
        cluster.extend(step.topic, settings.kafka_partitions)


def _refusal(settings: Settings, error: KafkaError) -> BackendError:
    """Why Kafka has not created or extended a topic."""
    if error.code() == KafkaError.INVALID_REPLICATION_FACTOR:
        return ConfigurationError(
            "--kafka-replication-factor / KAFKA_REPLICATION_FACTOR is larger than the number of brokers"
        )
    return explained(settings, error)
