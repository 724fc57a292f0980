"""Produces messages to Kafka, and returns their places once all in-sync replicas have them."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bridge.kafka.cluster import Cluster
from bridge.kafka.connection import configuration, explained, translated
from tasks.config.settings import Settings
from tasks.errors import BackendError, Unavailable
from tasks.message import Headers
from tasks.observability import events

_REQUEST_BYTES = 100_000_000  # brokers close a connection at 104,857,600 (socket.request.max.bytes)
_POLL_SECONDS = 1.0
_PROBE_SECONDS = 1.0
_CONFIGURATION: Mapping[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,  # neither twice nor out of order, whatever is sent again
    "batch.size": 1 << 17,  # of a larger one a broker with a low max.message.bytes would reject every message
    # Records without a key travel together for a moment (KIP-480): a request of librdkafka has those of one partition.
    "sticky.partitioning.linger.ms": 100,
    "partitioner": "murmur2_random",  # a key has the partition that Kafka's own clients choose
    "topic.metadata.refresh.interval.ms": 5_000,  # the delay until new partitions are noticed
    # The broker decides what is too large: a redriven record may come from a producer with higher limits.
    "message.max.bytes": _REQUEST_BYTES,
    "queue.buffering.max.messages": 0,  # KafkaPublisher limits the queue, in bytes
}
_UNKNOWN_OFFSET = -1
_NO_SUCH_PARTITION = {KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART}


class UnknownOutcome(BackendError):
    """Raised when Kafka did not acknowledge a message in time: Kafka may have it, or not."""


class Overloaded(BackendError):
    """Raised when the publish queue is full: the message was not sent."""


class Refused(BackendError):
    """Raised when this message can never be produced; others can."""


class TooLarge(Refused):
    """Raised when Kafka does not accept a message of this size."""


class Place(NamedTuple):
    """The place of a message in Kafka. The offset is -1 where Kafka only says that it already has the message."""

    topic: str
    partition: int
    offset: int


class Publisher(Protocol):
    """What the API and redrive need of Kafka."""

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> Callable[[], Place]:
        """Send a message; calling the result waits until Kafka has acknowledged it. Messages keep their order.

        Without `partition` the key chooses one. Both calls raise Unavailable or Overloaded (certainly not in Kafka),
        UnknownOutcome, or Refused, also for a partition that the topic does not have.
        """
        ...

    def unavailable_reason(self) -> str | None:
        """Why Kafka cannot be used now; None if it can."""
        ...


class _Waiting:
    """The wait of one message for Kafka's response. A lock costs less than a condition or an event."""

    __slots__ = ("_answered", "_error", "_place", "partition", "size", "topic")

    def __init__(self, topic: str, partition: int | None, size: int) -> None:
        self.topic, self.partition, self.size = topic, partition, size
        self._answered = threading.Lock()
        self._answered.acquire()
        self._error: KafkaError | None = None
        self._place: Place | None = None

    def end(self, error: KafkaError | None, message: Message) -> None:
        """Set Kafka's response."""
        if error is None:
            self._place = Place(self.topic, message.partition(), max(message.offset(), _UNKNOWN_OFFSET))
        self._error = error
        self._answered.release()

    def outcome(self, seconds: float) -> "Place | KafkaError | None":
        """Kafka's response; None if there is none within `seconds`. Call it once."""
        self._answered.acquire(timeout=seconds)
        return self._place or self._error


class KafkaPublisher:
    """Publishes through one producer, which the first message creates: a server may start before Kafka, and forks.

    Threads share it, so that their messages travel together.
    """

    def __init__(self, settings: Settings, linger_ms: int = 10) -> None:
        """A message waits up to `linger_ms` for others: less means more requests, more needless waits (decision 31)."""
        self._settings = settings
        self._linger_ms = linger_ms
        self._lock = threading.Lock()
        self._looking_up = threading.Lock()  # held for seconds while no broker responds
        self._producer: Any = None
        self._cluster: Cluster | None = None
        self._topics: set[str] = set()  # that exist
        self._queued = 0  # bytes that Kafka has not acknowledged

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> Callable[[], Place]:
        """Send a message; see Publisher.send."""
        if partition is not None and partition < 0:
            raise Refused(f"topic {topic} has no partition {partition}")
        self._look_up(topic)
        waiting = _Waiting(topic, partition, len(value or b"") + len(key or b""))
        self._reserve(waiting.size)

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            self._release(waiting.size)
            waiting.end(error, message)

        try:
            self._connected().produce(
                topic,
                value,
                key,
                -1 if partition is None else partition,
                headers=list(headers),
                on_delivery=on_delivery,
            )
        except BaseException as error:
            self._release(waiting.size)
            if isinstance(error, KafkaException):
                raise self._failure(error.args[0], waiting) from error
            raise
        deadline = time.monotonic() + self._settings.publish_timeout_seconds
        return lambda: self._kept(waiting, deadline)

    def unavailable_reason(self) -> str | None:
        """Why no broker can be used now; None if one can."""
        self._cluster = self._cluster or Cluster(self._settings)
        try:
            self._cluster.respond(_PROBE_SECONDS)
        except Unavailable as error:
            return str(error)
        return None

    def close(self) -> None:
        """Send the queued messages, and close the producer."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.flush(5)

    def _kept(self, waiting: _Waiting, deadline: float) -> Place:
        outcome = waiting.outcome(max(0.0, deadline - time.monotonic()))
        if outcome is None:
            raise UnknownOutcome("Kafka did not acknowledge the message in time")
        if isinstance(outcome, KafkaError):
            raise self._failure(outcome, waiting)
        return outcome

    def _failure(self, error: KafkaError, waiting: _Waiting) -> BackendError:
        """What librdkafka's error means for the message."""
        code, topic = error.code(), waiting.topic
        if error.fatal():  # this producer cannot be used any more; the next message makes a new one
            self._producer = None
        if code == KafkaError.MSG_SIZE_TOO_LARGE:
            return TooLarge(
                f"Kafka rejects a message of {waiting.size} bytes in topic {topic}; its max.message.bytes is lower"
            )
        if code in _NO_SUCH_PARTITION:
            self._topics.discard(topic)
            if waiting.partition is not None:
                return Refused(f"topic {topic} has no partition {waiting.partition}")
            return Unavailable(f"Kafka has no topic {topic}: create it with init")
        if code == KafkaError.INVALID_RECORD:
            return Refused(f"Kafka rejects the message: topic {topic} is compacted, and it has no key")
        if code == KafkaError.INVALID_TIMESTAMP:
            return Unavailable(
                "Kafka rejects the timestamp: the clocks of this host and of the broker differ by more than"
                " message.timestamp.after.max.ms or message.timestamp.before.max.ms of the topic"
            )
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return explained(self._settings, error)
        return UnknownOutcome(f"Kafka did not acknowledge the message: {error.str()}")

    def _reserve(self, size: int) -> None:
        with self._lock:
            if self._queued and self._queued + size > self._settings.publish_queue_bytes:
                raise Overloaded("The publish queue for Kafka is full")
            self._queued += size

    def _release(self, size: int) -> None:
        with self._lock:
            self._queued -= size

    def _look_up(self, topic: str) -> None:
        """Wait for a broker that knows the topic, before its first message: until then surely nothing is sent."""
        if topic in self._topics:
            return
        # A Kafka that hangs must not block the messages after the first for as long as that one.
        if not self._looking_up.acquire(timeout=self._settings.publish_timeout_seconds):
            raise Unavailable("Kafka does not respond")
        try:
            if topic not in self._topics:
                with translated(self._settings):
                    found = self._connected().list_topics(topic, timeout=self._settings.publish_timeout_seconds)
                error = found.topics[topic].error
                if error is not None and error.code() in _NO_SUCH_PARTITION:
                    raise Unavailable(f"Kafka has no topic {topic}: create it with init")
                if error is not None:
                    raise explained(self._settings, error)
                self._topics.add(topic)
        finally:
            self._looking_up.release()

    def _connected(self) -> Producer:
        with self._lock:
            if self._producer is None:
                options = {
                    **configuration(self._settings),
                    **_CONFIGURATION,
                    "linger.ms": self._linger_ms,
                    "message.timeout.ms": self._settings.publish_timeout_seconds * 1000,
                    # Twice, because it counts what it needs besides the bytes of the messages.
                    "queue.buffering.max.kbytes": 2 * self._settings.publish_queue_bytes // 1000
                    + 2 * _REQUEST_BYTES // 1000,
                }
                self._producer = Producer(options, logger=events.library_logger("librdkafka"))
                threading.Thread(target=self._serve, args=(self._producer,), name="producer", daemon=True).start()
            return self._producer

    def _serve(self, producer: Producer) -> None:
        """Run the callbacks of a producer while it is used."""
        while self._producer is producer:
            producer.poll(_POLL_SECONDS)
