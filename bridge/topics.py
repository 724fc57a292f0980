"""Topics as they should be and as they are: what `init` creates, extends, and warns of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kafka.admin import KafkaAdminClient, NewPartitions, NewTopic
from kafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidReplicationFactorError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from bridge.clients import new_admin
from tasks.errors import AccessDenied, ConfigurationError, Unavailable
from tasks.settings import Settings


@dataclass(frozen=True)
class Topic:
    """A topic as the broker describes it."""

    name: str
    partitions: int
    replication_factor: int


@dataclass(frozen=True)
class Step:
    """What one topic needs, with a sentence. `keep` changes nothing, and `warn` says why it should not."""

    action: Literal["create", "extend", "keep", "warn"]
    topic: str
    sentence: str


def plan(wanted: Sequence[str], partitions: int, replication_factor: int, existing: Sequence[Topic]) -> Iterator[Step]:
    """The steps from `existing` to what the settings want. Never shrinks: Kafka cannot."""
    there = {topic.name: topic for topic in existing}
    for name in wanted:
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


def ensure(settings: Settings, check_only: bool) -> list[Step]:
    """Bring all topics to what the settings want; with `check_only` just say what that would take.

    Raises Unavailable, AccessDenied, ConfigurationError.
    """
    admin = new_admin(settings)
    try:
        steps = list(
            plan(
                settings.kafka_topics,
                settings.kafka_partitions,
                settings.kafka_replication_factor,
                describe(admin, settings.kafka_topics),
            )
        )
        if not check_only:
            for step in steps:
                _apply(admin, step, settings)
        return steps
    except (TopicAuthorizationFailedError, ClusterAuthorizationFailedError) as error:
        raise AccessDenied(f"Kafka gives no right to create or describe topics: {error.description}") from error
    except InvalidReplicationFactorError as error:
        raise ConfigurationError(
            "--kafka-replication-factor / KAFKA_REPLICATION_FACTOR is larger than the number of brokers"
        ) from error
    except KafkaError as error:
        raise Unavailable(f"Kafka did not answer while topics were looked at: {error}") from error
    finally:
        admin.close()


def missing(settings: Settings, names: Sequence[str]) -> list[str]:
    """Those of `names` that Kafka does not have. Raises Unavailable."""
    admin = new_admin(settings)
    try:
        there = set(admin.list_topics())
    except KafkaError as error:
        raise Unavailable(f"Kafka did not answer while topics were looked at: {error}") from error
    finally:
        admin.close()
    return [name for name in names if name not in there]


def describe(admin: KafkaAdminClient, names: Sequence[str]) -> list[Topic]:
    """Those of `names` that exist. Raises KafkaError."""
    # Listing first: asking for a topic that is not there may create it, and the two clients differ on errors.
    present = [name for name in admin.list_topics() if name in names]
    if not present:
        return []
    return [_topic(found) for found in admin.describe_topics(present)]


def _topic(found: dict[str, Any]) -> Topic:
    partitions = found["partitions"]
    replicas = min((len(p.get("replicas", p.get("replica_nodes", ()))) for p in partitions), default=0)
    return Topic(found.get("topic") or found["name"], len(partitions), replicas)


def _apply(admin: KafkaAdminClient, step: Step, settings: Settings) -> None:
    if step.action == "create":
        new = NewTopic(step.topic, settings.kafka_partitions, settings.kafka_replication_factor)
        try:
            admin.create_topics([new])
        except TopicAlreadyExistsError:
            return  # another init was faster: success
    elif step.action == "extend":
        admin.create_partitions({step.topic: NewPartitions(total_count=settings.kafka_partitions)})
