"""What kafka-python-ng 2.2 and kafka-python 3 need before the backend can rely on them, in one place.

Each piece says why it exists and when it can be deleted. Everything that is for kafka-python-ng alone ends with the
support of that client, which is archived.
"""

from collections.abc import Callable, Iterator
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka.metrics.stats.sensor import Sensor
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch
from kafka.structs import OffsetAndMetadata

from bridge.kafka.types import RebalanceListener, TopicPartition
from tasks.errors import ConfigurationError

IS_NG = "isolation_level" not in KafkaConsumer.DEFAULT_CONFIG
# Options that kafka-python-ng does not have. It has no isolation levels, see _RecordBatch.
CONSUMER_OPTIONS: dict[str, Any] = (
    {} if IS_NG else {"isolation_level": "read_committed", "metrics_enabled": False, "bootstrap_timeout_ms": 2000}
)


def patch() -> None:
    """Install the record batch below, and turn off the statistics of kafka-python-ng. Safe to call again.

    Nobody reads these statistics. Ends with kafka-python-ng.
    """
    memory_records.DefaultRecordBatch = _RecordBatch
    if IS_NG:
        Sensor.record = _record_nothing


def _record_nothing(sensor: Sensor, value: float = 1.0, time_ms: float | None = None) -> None:
    pass


class _RecordBatch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch of records in which header names need not be UTF-8, and which kafka-python-ng does not misread.

    kafka-python-ng returns records of aborted transactions, and the marks that end transactions as records; so
    transactions are refused: ends with kafka-python-ng. Both clients raise UnicodeDecodeError for a whole batch if a
    header name is not UTF-8, which Go and C clients allow; the bridge would exit, restart and exit again: ends when the
    client decodes such names.
    """

    _buffer: bytearray

    def __iter__(self) -> Iterator[Any]:
        if IS_NG and self.is_transactional:
            raise ConfigurationError(
                "a topic has transactions, and kafka-python-ng cannot tell which of them were aborted:"
                " set --kafka-client / KAFKA_CLIENT to confluent"
            )
        records: Iterator[Any] = super().__iter__()
        return records

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            self._buffer = _LenientBuffer(self._buffer)
            return super()._read_msg()


class _LenientBuffer(bytearray):
    """Bytes whose slices can always be decoded."""

    def __getitem__(self, at: Any) -> Any:
        value = super().__getitem__(at)
        return _LenientBytes(value) if isinstance(at, slice) else value


class _LenientBytes(bytes):
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The text; an invalid byte becomes a backslash, x and two hexadecimal digits."""
        return super().decode(encoding, "backslashreplace")


class _ResumingConsumer(KafkaConsumer):  # type: ignore[misc]
    """A consumer that loses no records when a partition is paused.

    A poll discards what was fetched of a paused partition. After a resume, kafka-python-ng continues behind the last
    batch it has seen, as if the records before it had been compacted. Ends with kafka-python-ng.
    """

    def resume(self, *partitions: TopicPartition) -> None:
        for partition in partitions:
            self._subscription.assignment[partition].last_offset_from_message_batch = None
        super().resume(*partitions)


KAFKA_CONSUMER: Callable[..., Any] = _ResumingConsumer if IS_NG else KafkaConsumer


class ListenerAdapter(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes rebalances to a listener of ours. Both clients accept only subclasses of their own class."""

    def __init__(self, listener: RebalanceListener) -> None:
        self._listener = listener

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Called by the client in a poll."""
        self._listener.on_partitions_assigned(assigned)

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Called by the client in a poll."""
        self._listener.on_partitions_revoked(revoked)


def offset_and_metadata(offset: int, metadata: str) -> OffsetAndMetadata:
    """An offset as the client commits it. kafka-python 3 adds a leader epoch; -1 means unknown."""
    rest = () if len(OffsetAndMetadata._fields) == 2 else (-1,)
    return OffsetAndMetadata(offset, metadata, *rest)
