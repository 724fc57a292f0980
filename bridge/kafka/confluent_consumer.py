"""A member of the consumer group by confluent-kafka, whose librdkafka fetches and unpacks records in C."""

from collections.abc import Collection, Mapping, Sequence
from operator import methodcaller
from time import monotonic
from typing import Any, NamedTuple

import confluent_kafka
import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from bridge.kafka.connection import COORDINATOR_MS, configuration, translated
from bridge.kafka.types import Committed, ConsumedRecord, OnCommit, RebalanceListener, TopicPartition
from tasks.config.settings import Settings
from tasks.errors import Unavailable
from tasks.observability import events, metrics

_CONNECT_SECONDS = 2.0
_STATISTICS_SECONDS = 5.0
_SILENT_SECONDS = 4 * _STATISTICS_SECONDS
_CONFIGURATION: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    # Partitions that stay with a member are read on during a rebalance.
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 6_000,  # until the partitions of a killed bridge are read again; brokers accept no less
    "heartbeat.interval.ms": 1_500,
    "coordinator.query.interval.ms": COORDINATOR_MS,
    "topic.metadata.refresh.interval.ms": 5_000,  # the delay until new partitions are noticed
    "fetch.message.max.bytes": 1 << 20,
    "fetch.max.bytes": 4 << 20,
    "queued.max.messages.kbytes": 8 << 10,  # limits what is prefetched, for all partitions together
    "fetch.queue.backoff.ms": 20,
    "statistics.interval.ms": int(_STATISTICS_SECONDS * 1000),
}
# If the name of a header is not UTF-8, the client returns a list with a hole, and leaves an exception behind. Then
# Python raises SystemError; but not for `message.headers()`, which it calls directly once it is hot, and the hole ends
# the process (seen with confluent-kafka 2.16.1 and Python 3.11).
_headers = methodcaller("headers")


# `TopicWatch` finds missing topics, and the watchdog brokers that do not respond.
_SAID_ELSEWHERE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._PARTITION_EOF,
}


class _Record(NamedTuple):
    """A ConsumedRecord. `headers` is None if the name of one is not UTF-8: the client cannot return them."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] | None
    serialized_key_size: int
    serialized_value_size: int
    serialized_header_size: int


class ConfluentConsumer:
    """See Consumer in bridge/kafka/types.py."""

    def __init__(self, settings: Settings) -> None:
        """Connects. Raises Unavailable when no broker responds, AccessDenied when one rejects us or is not trusted."""
        self._listener: RebalanceListener | None = None
        self._listener_of_commits: OnCommit | None = None
        self._reported = ""
        self._assigned: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        self._polled_at = self._heard_at = monotonic()
        self._client = Consumer(
            {
                **_CONFIGURATION,
                **configuration(settings),
                "group.id": settings.kafka_group_id,
                "on_commit": self._on_commit,
                "stats_cb": self._on_statistics,
            },
            logger=events.library_logger("librdkafka"),
        )
        try:
            with translated(settings):
                self._client.list_topics(timeout=_CONNECT_SECONDS)
        except Unavailable:
            self._client.close()
            raise

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        self._listener = listener
        revoked = self._on_revoke
        self._client.subscribe(list(topics), on_assign=self._on_assign, on_revoke=revoked, on_lost=revoked)

    def poll(
        self, timeout_ms: int = 0, max_records: int | None = None
    ) -> Mapping[TopicPartition, Sequence[ConsumedRecord]]:
        now = monotonic()
        if now - self._polled_at > _STATISTICS_SECONDS:
            self._heard_at = now  # what it had to say meanwhile waits for this poll
        self._polled_at = now
        # `consume` would wait until it has all it may return.
        first = self._client.poll(timeout_ms / 1000)
        if first is None:
            return {}
        polled: dict[TopicPartition, list[Any]] = {}
        for message in [first, *self._client.consume((max_records or 2000) - 1, 0)]:
            if message.error() is not None:
                self._report(message.error())
                continue
            place = message.topic(), message.partition()  # made in a quarter of the time, and equal
            records = polled.get(place)  # type: ignore[call-overload]
            if records is None:
                records = polled[TopicPartition(*place)] = []
            records.append(_record(message))
        if polled.keys() - self._assigned:  # revoked between the two calls
            polled = {partition: records for partition, records in polled.items() if partition in self._assigned}
        for partition, records in polled.items():
            self._positions[partition] = records[-1].offset + 1
        return polled

    def assignment(self) -> set[TopicPartition]:
        return set(self._assigned)

    def paused(self) -> set[TopicPartition]:
        return set(self._paused)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._client.pause(_theirs(partitions))
        self._paused |= set(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._client.resume(_theirs(partitions))
        self._paused -= set(partitions)

    def position(self, partition: TopicPartition) -> int | None:
        [theirs] = self._client.position(_theirs([partition]))  # also passes the marks of transactions
        position = max(self._positions.get(partition, -1), int(theirs.offset))
        return position if position >= 0 else None

    def seek(self, partition: TopicPartition, offset: int) -> bool:
        try:
            self._client.seek(confluent_kafka.TopicPartition(*partition, offset))
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:
                raise
            return False
        self._positions[partition] = offset
        return True

    def commit(self, offsets: Mapping[TopicPartition, Committed]) -> str | None:
        try:
            committed = self._client.commit(offsets=_offsets(offsets), asynchronous=False)
        except KafkaException as error:
            return str(error.args[0].str())
        return next((entry.error.str() for entry in committed or () if entry.error is not None), None)

    def commit_async(self, offsets: Mapping[TopicPartition, Committed], on_commit: OnCommit) -> None:
        self._listener_of_commits = on_commit
        self._client.commit(offsets=_offsets(offsets), asynchronous=True)

    def is_silent(self) -> bool:
        # Statistics come from the thread that also leads the group and the brokers' threads.
        return self._polled_at - self._heard_at > _SILENT_SECONDS

    def close(self) -> None:
        self._listener = self._listener_of_commits = None
        self._client.close()

    def _on_assign(self, client: Consumer, partitions: list[Any]) -> None:
        assigned = set(map(_ours, partitions))
        self._assigned |= assigned
        client.incremental_assign(partitions)
        client.resume(partitions)  # librdkafka remembers the pause of a partition that was ours before
        if self._listener is not None:
            self._listener.on_partitions_assigned(assigned)

    def _on_revoke(self, client: Consumer, partitions: list[Any]) -> None:
        revoked = set(map(_ours, partitions))
        if self._listener is not None:
            self._listener.on_partitions_revoked(revoked)
        self._assigned -= revoked
        self._paused -= revoked
        for partition in revoked:
            self._positions.pop(partition, None)

    def _on_commit(self, error: Any, partitions: list[Any]) -> None:
        if self._listener_of_commits is None:
            return
        for entry in partitions:
            rejection = error or entry.error
            self._listener_of_commits({_ours(entry): entry.offset}, None if rejection is None else rejection.str())

    def _on_statistics(self, statistics: str) -> None:
        """Update the metrics (STATISTICS.md of librdkafka)."""
        self._heard_at = monotonic()
        found = orjson.loads(statistics)
        partitions = (partition for topic in found["topics"].values() for partition in topic["partitions"].values())
        metrics.FETCHED_BYTES.set(sum(partition["fetchq_size"] for partition in partitions))
        for broker in found["brokers"].values():
            if broker["nodeid"] >= 0:  # not the address that only the first connection used
                metrics.KAFKA_SECONDS.set(broker["rtt"]["avg"] / 1_000_000, str(broker["nodeid"]))

    def _report(self, error: KafkaError) -> None:
        """Say once what keeps the client from reading; a fatal error ends the process, which is started again."""
        if error.fatal():
            raise KafkaException(error)
        if error.code() not in _SAID_ELSEWHERE and error.str() != self._reported:
            self._reported = error.str()
            events.emit("service.unavailable", service="kafka", reason=self._reported)


def _record(message: Message) -> _Record:
    key, value = message.key(), message.value()
    try:
        headers = _headers(message) or ()
    except SystemError:
        headers = None
    return _Record(
        message.offset(),
        message.timestamp()[1],
        key,
        value,
        headers,
        -1 if key is None else len(key),
        -1 if value is None else len(value),
        -1 if not headers else sum(len(name) + len(raw or b"") for name, raw in headers),
    )


def _ours(partition: confluent_kafka.TopicPartition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.partition)


def _theirs(partitions: Collection[TopicPartition]) -> list[confluent_kafka.TopicPartition]:
    return [confluent_kafka.TopicPartition(*partition) for partition in partitions]


def _offsets(offsets: Mapping[TopicPartition, Committed]) -> list[confluent_kafka.TopicPartition]:
    return [
        confluent_kafka.TopicPartition(*partition, committed.offset, committed.topic_id)
        for partition, committed in offsets.items()
    ]
