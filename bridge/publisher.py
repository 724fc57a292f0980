"""Puts messages into Kafka and says where they lie, once all in-sync replicas have them."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

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


@dataclass(frozen=True)
class Place:
    """Where Kafka keeps a message."""

    topic: str
    partition: int
    offset: int


class Publisher(Protocol):
    """What the API needs of Kafka."""

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> Callable[[], Place]:
        """Put one message on its way; calling what is returned waits until it is kept. Messages stay in order.

        Both raise Unavailable or Overloaded (surely not kept), UnknownOutcome, or Refused.
        """
        ...

    def wrong(self) -> str | None:
        """Why Kafka cannot be used now; None when it can."""
        ...


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

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> Callable[[], Place]:
        """Put one message on its way; see Publisher.send."""
        if (key is None and value is None) or any(raw is None for _, raw in headers):
            raise Refused("the Kafka client takes no message without key and value, and no header without value")
        producer = self._connected()
        size = len(value or b"") + len(key or b"")
        self._reserve(size)
        try:
            sent = producer.send(topic, value=value, key=key, headers=list(headers))
        except BaseException as error:
            self._release(size)
            if isinstance(error, MessageSizeTooLargeError):
                raise TooLarge(str(error)) from error
            if isinstance(error, KafkaTimeoutError):  # no metadata, or no room in the queue: never sent
                raise Unavailable("Kafka does not take messages at the moment") from error
            raise
        sent.add_both(lambda _: self._release(size))
        return lambda: self._kept(sent)

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

    def _kept(self, sent: Any) -> Place:
        try:
            kept = sent.get(timeout=self._settings.publish_timeout_seconds)
        except MessageSizeTooLargeError as error:
            raise TooLarge("the broker takes no message of this size") from error
        except KafkaError as error:
            raise UnknownOutcome("Kafka did not acknowledge the message in time") from error
        return Place(kept.topic, kept.partition, kept.offset)

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
        with self._connecting:
            if self._producer is None:
                self._producer = new_producer(self._settings)
            return self._producer
