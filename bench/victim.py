"""The topic of `make chaos` that is deleted, recreated, truncated and extended, and an account of its records."""

import hashlib
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import orjson
from confluent_kafka import KafkaException, Producer

from tests.world import World


class _Sent(NamedTuple):
    epoch: int
    partition: int
    offset: int


class Victim:
    """Sends records at a low rate, without ids of their own, and remembers the place of each that was acknowledged.

    An epoch lasts from one creation of the topic to its next deletion; what is acknowledged between two is in doubt.
    """

    def __init__(self, world: World, topic: str) -> None:
        self.topic = topic
        self.sent: dict[str, _Sent] = {}
        self._world = world
        self._epoch = 0
        self._changing = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._produce)

    def __enter__(self) -> "Victim":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """While the block runs the topic is deleted and created."""
        self._changing = True
        try:
            yield
        finally:
            self._epoch += 1
            self._changing = False

    def _produce(self) -> None:
        options = {"bootstrap.servers": self._world.variables["KAFKA_BROKERS"], "logger": None, "log_level": 0}
        producer = Producer({**options, "message.timeout.ms": 5000, "acks": "all"})
        while not self._ending.wait(0.02):
            told = partial(self._told, self._epoch, not self._changing)
            body = orjson.dumps({"id": str(uuid.uuid4()), "type": "victim"})
            with suppress(KafkaException):  # the topic is gone
                producer.produce(self.topic, body, on_delivery=told)
            producer.poll(0)
        producer.flush(30)

    def _told(self, epoch: int, sure: bool, error: Any, message: Any) -> None:
        if error is None and sure and not self._changing and epoch == self._epoch:
            self.sent[id_of_place(message)] = _Sent(epoch, message.partition(), message.offset())

    def account(self) -> dict[str, int]:
        """How many acknowledged records were stored or deleted; the unexplained ones are lost in silence."""
        stored = {row[0] for row in self._world.sql("SELECT id::text FROM message WHERE topic = %s", self.topic)}
        losses = 'SELECT "partition", first_offset, last_offset FROM lost_records WHERE topic = %s'
        rows = self._world.sql(losses, self.topic)
        called = {(partition, offset) for partition, first, last in rows for offset in range(first, last + 1)}
        current = {name: sent for name, sent in self.sent.items() if sent.epoch == self._epoch}
        missing = self.sent.keys() - stored
        unexplained = [n for n in missing & current.keys() if (current[n].partition, current[n].offset) not in called]
        return {
            "acknowledged": len(self.sent),
            "stored": len(self.sent.keys() & stored),
            "deleted with their topic": len(missing - current.keys()),
            "deleted unread and said": len(missing & current.keys()) - len(unexplained),
            "unexplained": len(unexplained),
        }


def id_of_place(message: Any) -> str:
    """The id of a message whose record has only its place, as docs/messages.md describes it."""
    _, timestamp = message.timestamp()
    place = f"{message.topic()}/{message.partition()}/{message.offset()}/{timestamp}"
    digits = f"{max(timestamp, 0):012x}{hashlib.sha1(place.encode(), usedforsecurity=False).hexdigest()}"
    variant = f"{int(digits[16], 16) & 3 | 8:x}"
    return str(uuid.UUID(f"{digits[:12]}8{digits[13:16]}{variant}{digits[17:32]}"))
