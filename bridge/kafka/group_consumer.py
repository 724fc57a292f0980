"""A member of the consumer group by kafka-python-ng or kafka-python 3."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kafka import structs
from kafka.errors import KafkaError

from bridge.kafka import compat
from bridge.kafka.connection import SETTING
from bridge.kafka.preflight import check
from bridge.kafka.types import Committed, ConsumedRecord, OnCommit, RebalanceListener, TopicPartition
from tasks.config import tls
from tasks.config.settings import Settings
from tasks.errors import Unavailable

_METADATA_MS = 5_000  # the delay until new topics and partitions are noticed; the client's default is 5 minutes


class GroupConsumer:
    """See Consumer in bridge/kafka/types.py."""

    def __init__(self, settings: Settings) -> None:
        """Connects. Raises Unavailable when no broker responds, AccessDenied when one rejects us or is not trusted."""
        compat.patch()
        check(settings)  # the client retries forever where a broker wants a user
        addresses, brokers = list(settings.kafka_brokers), ", ".join(settings.kafka_brokers)
        try:
            self._client = compat.KAFKA_CONSUMER(
                bootstrap_servers=addresses,
                client_id="backend",
                group_id=settings.kafka_group_id,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                metadata_max_age_ms=_METADATA_MS,
                max_partition_fetch_bytes=1 << 20,
                fetch_max_bytes=16 << 20,  # of one response for all partitions: limits what is prefetched
                **_security(settings),
                **compat.CONSUMER_OPTIONS,
            )
        except KafkaError as error:
            raise Unavailable(f"Kafka does not respond at {brokers} ({SETTING}): {error}") from error
        except ValueError as error:  # not a valid address
            raise Unavailable(f"{brokers} is not a valid address of Kafka ({SETTING}): {error}") from error

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        self._client.subscribe(topics=list(topics), listener=compat.ListenerAdapter(listener))
        # kafka-python 3 may become the group's leader before it knows the topics, assign nothing, and never look again.
        self._client.topics()

    def poll(
        self, timeout_ms: int = 0, max_records: int | None = None
    ) -> Mapping[TopicPartition, Sequence[ConsumedRecord]]:
        polled: Mapping[TopicPartition, Sequence[ConsumedRecord]] = self._client.poll(timeout_ms, max_records)
        return polled

    def assignment(self) -> set[TopicPartition]:
        return set(self._client.assignment())

    def paused(self) -> set[TopicPartition]:
        return set(self._client.paused())

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._client.pause(*map(_theirs, partitions))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._client.resume(*map(_theirs, partitions))

    def position(self, partition: TopicPartition) -> int | None:
        # Before the first fetch, asking the client would wait for Kafka.
        known = self._client.highwater(_theirs(partition)) is not None
        return int(self._client.position(_theirs(partition))) if known else None

    def seek(self, partition: TopicPartition, offset: int) -> bool:
        self._client.seek(_theirs(partition), offset)
        return True

    def commit(self, offsets: Mapping[TopicPartition, Committed]) -> str | None:
        try:
            self._client.commit(_offsets(offsets))
        except KafkaError as error:
            return str(error)
        return None

    def commit_async(self, offsets: Mapping[TopicPartition, Committed], on_commit: OnCommit) -> None:
        def callback(_: Any, response: Any) -> None:
            positions = {partition: committed.offset for partition, committed in offsets.items()}
            on_commit(positions, str(response) if isinstance(response, Exception) else None)

        self._client.commit_async(_offsets(offsets), callback=callback)

    def is_silent(self) -> bool:
        return False  # it has no thread that could stand still, but the caller's

    def close(self) -> None:
        self._client.close(autocommit=False)


def _security(settings: Settings) -> dict[str, Any]:
    """The options for TLS and SASL."""
    options: dict[str, Any] = {"security_protocol": settings.kafka_security_protocol.upper()}
    if settings.kafka_security_protocol.endswith("ssl"):
        options["ssl_context"] = tls.context(
            settings.kafka_ssl_ca_file, settings.kafka_ssl_cert_file, settings.kafka_ssl_key_file
        )
    if settings.kafka_security_protocol.startswith("sasl"):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism.upper()
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = settings.kafka_sasl_password
    return options


def _offsets(offsets: Mapping[TopicPartition, Committed]) -> dict[Any, Any]:
    return {_theirs(partition): compat.offset_and_metadata(*committed) for partition, committed in offsets.items()}


def _theirs(partition: TopicPartition) -> Any:
    """The client accepts only its own type; what it returns is equal to ours."""
    return structs.TopicPartition(*partition)
