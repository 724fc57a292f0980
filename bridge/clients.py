"""How we talk to Kafka: every client is made here, with defaults that lose nothing.

The code keeps to what kafka-python-ng 2.2 and kafka-python 3 both offer; either may be installed.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from kafka.metrics.stats.sensor import Sensor
from kafka.partitioner import DefaultPartitioner
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch
from kafka.structs import OffsetAndMetadata, TopicPartition

from bridge.admission import check
from tasks import tls
from tasks.errors import Unavailable
from tasks.settings import Settings

Client = TypeVar("Client")

_SETTING = "--kafka-brokers / KAFKA_BROKERS"
_FIRST_ANSWER_MS = 2000
_STICK_SECONDS = 0.02  # some requests long
_REQUEST_BYTES = 100_000_000  # brokers end a connection at 104,857,600 (socket.request.max.bytes)
_METADATA_MS = 5_000  # the delay until new topics and partitions are noticed; the default is 5 minutes
_BATCH_BYTES = 1 << 17  # the client's own 16 kB are 50 small messages: each batch costs as much as ten of them
# Records of aborted transactions are none. kafka-python-ng cannot tell them apart (see README).
_IS_NG = "isolation_level" not in KafkaConsumer.DEFAULT_CONFIG
_READ_COMMITTED = {} if _IS_NG else {"isolation_level": "read_committed"}


def new_consumer(settings: Settings, listener: Any) -> KafkaConsumer:
    """A member of the consumer group, subscribed to all topics; commits nothing by itself.

    Raises Unavailable when no broker answers, AccessDenied when none lets us in or can be trusted.
    """
    consumer = _made(
        _ConsumerThatResumes if _IS_NG else KafkaConsumer,
        settings,
        group_id=settings.kafka_group_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        metadata_max_age_ms=_METADATA_MS,
        max_partition_fetch_bytes=1 << 20,
        **_READ_COMMITTED,
        fetch_max_bytes=16 << 20,  # of one answer for all partitions: bounds what we prefetch
    )
    consumer.subscribe(topics=list(settings.kafka_topics), listener=listener)
    # kafka-python 3 may lead the group before it knows its topics, give itself nothing, and never look again.
    consumer.topics()
    return consumer


def new_asker(settings: Settings) -> KafkaConsumer:
    """A consumer of no group that only asks where partitions end, for one that reads as ours do. Raises the same."""
    return _made(KafkaConsumer, settings, enable_auto_commit=False, request_timeout_ms=15_000, **_READ_COMMITTED)


class _Batch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch of records as the client reads it, minus control records, and with names of headers that are no UTF-8.

    kafka-python-ng hands the marks that end transactions on as records. And either client refuses a whole batch
    for such a name, which Go and C write without a word: the bridge would end, be started anew, and end again.
    """

    _buffer: bytearray

    def __iter__(self) -> Iterator[Any]:
        return iter(()) if _IS_NG and self.is_control_batch else super().__iter__()

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            self._buffer = _Lenient(self._buffer)
            return super()._read_msg()


class _Lenient(bytearray):
    """Bytes whose parts decode whatever they hold."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Name(found) if isinstance(at, slice) else found


class _Name(bytes):
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The text, with a backslash, x and hexadecimal for each byte that is none."""
        return super().decode(encoding, "backslashreplace")


class _ConsumerThatResumes(KafkaConsumer):  # type: ignore[misc]
    """A consumer that loses nothing in a pause.

    A poll throws away what was fetched of a paused partition. kafka-python-ng would then go on behind the
    last batch it has seen, as if the rest of that had been compacted away, and lose it.
    """

    def resume(self, *partitions: TopicPartition) -> None:
        for partition in partitions:
            self._subscription.assignment[partition].last_offset_from_message_batch = None
        super().resume(*partitions)


class Sticky(DefaultPartitioner):  # type: ignore[misc]
    """Records without key go to one partition for a moment, then to another: they travel in fewer batches (KIP-480)."""

    def __init__(self, seconds: float = _STICK_SECONDS) -> None:
        self._seconds = seconds
        self._partition = -1
        self._until = 0.0

    def __call__(self, key: bytes | None, all_partitions: list[int], available: list[int]) -> int:
        """The partition of a record; with a key, the one that all clients of Kafka give it."""
        if key is not None:
            return int(super().__call__(key, all_partitions, available))
        now = time.monotonic()
        if now >= self._until or self._partition not in available:
            self._partition, self._until = random.choice(available or all_partitions), now + self._seconds
        return self._partition


def new_producer(settings: Settings) -> KafkaProducer:
    """A producer whose records are acknowledged by all in-sync replicas, in order. Raises the same."""
    timeout_ms = settings.publish_timeout_seconds * 1000
    if _IS_NG:
        # KafkaPublisher bounds what waits. This client counts batches, however full, and would hang instead of refuse.
        own = {"buffer_memory": 2 * settings.publish_queue_bytes + 1000 * _BATCH_BYTES}
    else:
        # kafka-python 3's idempotent producer fails everything in flight when one record is too large.
        own = {"enable_idempotence": False}
    return _made(
        KafkaProducer,
        settings,
        acks="all",
        retries=10,
        max_in_flight_requests_per_connection=1,  # with more, a retry may overtake its successor
        linger_ms=3,  # less makes more requests, more makes requests wait for nothing (DECISIONS 31)
        batch_size=_BATCH_BYTES,
        **own,
        partitioner=Sticky(),
        max_block_ms=timeout_ms,
        request_timeout_ms=timeout_ms,
        metadata_max_age_ms=_METADATA_MS,
        # The broker says what is too large: a redriven record may come from a producer with higher bounds than ours.
        max_request_size=max(settings.max_body_bytes * 2, _REQUEST_BYTES),
    )


def new_admin(settings: Settings) -> KafkaAdminClient:
    """A client that reads and changes topics. Raises the same."""
    return _made(KafkaAdminClient, settings, request_timeout_ms=15_000)


def security(settings: Settings) -> dict[str, Any]:
    """The options of every client by which it trusts the brokers, and they trust us."""
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


def offsets(positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Positions as the client commits them; kafka-python 3 adds a leader epoch, -1 meaning none."""
    rest = ("",) if len(OffsetAndMetadata._fields) == 2 else ("", -1)
    return {partition: OffsetAndMetadata(position, *rest) for partition, position in positions.items()}


def wait_for_brokers(connect: Callable[[], Client], waiting: Callable[[str], bool]) -> Client:
    """Call `connect` until it raises Unavailable no more. `waiting` is told why; False gives up."""
    delay = 0.2
    while True:
        try:
            return connect()
        except Unavailable as error:
            if not waiting(str(error)):
                raise
            time.sleep(delay)
            delay = min(delay * 2, 2.0)


def _count_nothing(sensor: Sensor, value: float = 1.0, time_ms: float | None = None) -> None:
    """In place of what the client counts of itself: nobody reads it, and it took a third of a producer's thread."""


def _made(kind: Callable[..., Any], settings: Settings, **options: Any) -> Any:
    memory_records.DefaultRecordBatch = _Batch
    brokers: Sequence[str] = settings.kafka_brokers
    supported = getattr(kind, "DEFAULT_CONFIG", {})
    if _IS_NG:
        Sensor.record = _count_nothing
    elif "metrics_enabled" in supported:
        options["metrics_enabled"] = False
    if "bootstrap_timeout_ms" in supported:  # kafka-python 3 waits for a broker, 2.2 does not
        options["bootstrap_timeout_ms"] = _FIRST_ANSWER_MS
    check(settings)
    try:
        return kind(bootstrap_servers=list(brokers), client_id="backend", **security(settings), **options)
    except KafkaError as error:
        raise Unavailable(f"Kafka does not answer at {', '.join(brokers)} ({_SETTING}): {error}") from error
    except ValueError as error:  # an address that is none
        raise Unavailable(f"Kafka cannot be at {', '.join(brokers)} ({_SETTING}): {error}") from error
