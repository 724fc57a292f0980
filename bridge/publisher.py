"""Puts messages into Kafka and says where they lie, once all in-sync replicas have them."""

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from bridge.clients import new_admin, new_producer
from tasks.envelope import Headers
from tasks.errors import BackendError, Unavailable
from tasks.settings import Settings


class UnknownOutcome(BackendError):
    """Raised when Kafka did not acknowledge in time: the message may be stored later, or never."""


class Overloaded(BackendError):
    """Raised when too much waits for Kafka already: surely not kept."""


class Refused(BackendError):
    """Raised when this one message can never be produced; others can."""


class TooLarge(Refused):
    """Raised when Kafka does not take a message of this size."""


class Place(NamedTuple):
    """Where Kafka keeps a message."""

    topic: str
    partition: int
    offset: int


class Publisher(Protocol):
    """What the API needs of Kafka."""

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> Callable[[], Place]:
        """Put one message on its way; calling what is returned waits until it is kept. Messages stay in order.

        Without `partition` the key chooses one. Both raise Unavailable or Overloaded (surely not kept),
        UnknownOutcome, or Refused, also for a partition that the topic does not have.
        """
        ...

    def wrong(self) -> str | None:
        """Why Kafka cannot be used now; None when it can."""
        ...


class _Waiting:
    """The wait of one message for Kafka's answer.

    The client's own wait has one event for all messages of a batch, and a condition's lock that all who wait for it
    take one after the other once it is set: with 32 requests at once that cost more than sending.
    """

    __slots__ = ("_answered", "_free", "_said", "size", "topic")

    def __init__(self, topic: str, size: int, free: Callable[[int], None]) -> None:
        self.topic, self.size = topic, size
        self._answered = threading.Lock()
        self._answered.acquire()
        self._free = [free]
        self._said: Any = None

    def end(self, said: Any) -> None:
        """Say what Kafka said: the record's metadata or an error. What is said after that does not count."""
        try:
            free = self._free.pop()  # only one of two threads gets it
        except IndexError:
            return
        self._said = said
        self._answered.release()
        free(self.size)

    def outcome(self, seconds: float) -> Any:
        """What Kafka said; None when it says nothing for so long. To be asked once."""
        self._answered.acquire(timeout=seconds)
        return self._said


class KafkaPublisher:
    """Publishes through one producer, made at the first message: a server may start before Kafka.

    Threads share it, so that their messages travel together.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._connecting = threading.Lock()  # held for seconds while no broker answers
        self._producer: KafkaProducer | None = None
        self._queued = 0  # bytes that Kafka has not acknowledged

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> Callable[[], Place]:
        """Put one message on its way; see Publisher.send."""
        if (key is None and value is None) or any(raw is None for _, raw in headers):
            raise Refused("the Kafka client takes no message without key and value, and no header without value")
        producer = self._connected()
        size = len(value or b"") + len(key or b"")
        self._reserve(size)
        try:
            # For an unknown partition the clients raise AssertionError or ValueError, as they do for other faults.
            if partition is not None and partition not in producer.partitions_for(topic):
                raise Refused(f"topic {topic} has no partition {partition}")
            sent = producer.send(topic, value=value, key=key, headers=list(headers), partition=partition)
        except BaseException as error:
            self._release(size)
            if isinstance(error, KafkaTimeoutError):  # no metadata, or no room in the queue: never sent
                raise Unavailable("Kafka does not take messages at the moment") from error
            raise
        deadline = time.monotonic() + self._settings.publish_timeout_seconds
        waiting = _Waiting(topic, size, self._release)
        sent.add_both(waiting.end)
        if sent.is_done:  # kafka-python-ng forgets a callback that is added while it calls the others
            waiting.end(sent.exception or sent.value)
        return lambda: self._kept(waiting, deadline)

    def wrong(self) -> str | None:
        """Why no broker can be used now; None when one can."""
        try:
            new_admin(self._settings).close()
        except Unavailable as error:
            return str(error)
        return None

    def close(self) -> None:
        """Send what is queued and end the producer."""
        if self._producer is not None:
            self._producer.close(timeout=5)

    def _kept(self, waiting: "_Waiting", deadline: float) -> Place:
        said = waiting.outcome(max(0.0, deadline - time.monotonic()))
        if isinstance(said, MessageSizeTooLargeError):
            raise TooLarge(
                f"Kafka refuses a message of {waiting.size} bytes in topic {waiting.topic};"
                " its max.message.bytes is lower"
            ) from said
        if said is None or isinstance(said, KafkaError):
            raise UnknownOutcome("Kafka did not acknowledge the message in time") from said
        if isinstance(said, BaseException):
            raise said
        return Place(said.topic, said.partition, said.offset)

    def _reserve(self, size: int) -> None:
        # The client's own bound counts buffers, whatever their size, and waits instead of refusing.
        with self._lock:
            if self._queued and self._queued + size > self._settings.publish_queue_bytes:
                raise Overloaded("Too much waits for Kafka already")
            self._queued += size

    def _release(self, size: int) -> None:
        with self._lock:
            self._queued -= size

    def _connected(self) -> KafkaProducer:
        if self._producer is not None:
            return self._producer
        # The first message makes the producer. A Kafka that hangs must not hold up those that come meanwhile.
        if not self._connecting.acquire(timeout=self._settings.publish_timeout_seconds):
            raise Unavailable("Kafka does not answer")
        try:
            if self._producer is None:
                self._producer = new_producer(self._settings)
            return self._producer
        finally:
            self._connecting.release()
