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

    def publish(self, topic: str, key: bytes | None, value: bytes, headers: Headers) -> Place:
        """Keep one message. Raises Unavailable (surely not kept), UnknownOutcome, or TooLarge."""
        ...

    def reachable(self) -> bool:
        """Whether Kafka answers now."""
        ...


class KafkaPublisher:
    """Publishes through one producer, made at the first message: a server may start before Kafka.

    Threads share it, so that their messages travel together.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None

    def publish(self, topic: str, key: bytes | None, value: bytes, headers: Headers) -> Place:
        """Keep one message; see Publisher.publish."""
        return self.send(topic, key, value, headers)()

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> Callable[[], Place]:
        """Put one message on its way; calling what is returned waits until it is kept. Messages stay in order.

        Both raise as Publisher.publish does, and Refused.
        """
        if (key is None and value is None) or any(raw is None for _, raw in headers):
            raise Refused("the Kafka client takes no message without key and value, and no header without value")
        producer = self._connected()
        try:
            sent = producer.send(topic, value=value, key=key, headers=list(headers))
        except MessageSizeTooLargeError as error:
            raise TooLarge(str(error)) from error
        except KafkaTimeoutError as error:  # no metadata, or no room in the queue: never sent
            raise Unavailable("Kafka does not take messages at the moment") from error
        return lambda: self._kept(sent)

    def reachable(self) -> bool:
        """Whether a broker answers now."""
        try:
            new_admin(self._settings).close()
        except Unavailable:
            return False
        return True

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

    def _connected(self) -> KafkaProducer:
        with self._lock:
            if self._producer is None:
                self._producer = new_producer(self._settings)
            return self._producer
