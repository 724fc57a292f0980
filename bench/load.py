"""The load of `make chaos`: records at a constant rate, and which of them were acknowledged."""

import threading
import time
from contextlib import suppress
from typing import Any

import orjson
import psycopg2
import requests
from confluent_kafka import Producer

from bench.own import chaos
from bench.victim import id_of_place
from tests.world import World

_POSTS_PER_SECOND = 10
_WISHES_EVERY = 5_000  # numbers of records; all others are neighbours of these
_WISHES = {1_000: chaos.KILL, 3_500: chaos.SLEEP}
SILENT = {"logger": None, "log_level": 0}


class Load:
    """Records at a constant rate, from a producer and over HTTP, and the ids of those that were acknowledged.

    Half of the producer's records have an id in a header, like rows of an outbox; the others have only their place.
    """

    def __init__(self, world: World, rate: int) -> None:
        self._world = world
        self._rate = rate
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self.sent = 0
        self.acknowledged: list[str] = []  # the numbers
        self.ids: list[str] = []  # the messages' ids, as far as they are known
        self.longest_stall = 0.0
        self._threads = [threading.Thread(target=run) for run in (self._produce, self._post, self._watch)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _next(self) -> str:
        with self._lock:
            self.sent += 1
            return f"00000000-0000-4000-8000-{self.sent:012}"

    def _produce(self) -> None:
        # The linger makes batches that are larger than a poll of the bridge.
        servers = self._world.variables["KAFKA_BROKERS"]
        options = {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 1500}
        producer = Producer({**options, **SILENT})
        while not self._ending.wait(0.1):
            for _ in range(self._rate // 10):
                with suppress(BufferError):  # Kafka is unavailable for long: not sent, so not acknowledged
                    self._send(producer, "chaos")
            producer.poll(0)
        producer.flush(60)

    def probe(self) -> None:
        """Send a record to each partition, and wait until Kafka has them."""
        producer = Producer({"bootstrap.servers": self._world.variables["KAFKA_BROKERS"], **SILENT})
        for partition in range(int(self._world.variables["KAFKA_PARTITIONS"])):
            self._send(producer, "chaos-probe", partition)
        producer.flush(60)

    def _send(self, producer: Producer, kind: str, partition: int = -1) -> None:
        number = self._next()
        named = int(number[-12:]) % 2 == 0

        def delivered(error: Any, message: Any) -> None:
            if error is None:
                self.acknowledged.append(number)
                if named or message.offset() >= 0:  # unknown if Kafka only says that it already has the record
                    self.ids.append(number if named else id_of_place(message))

        wish = _WISHES.get(int(number[-12:]) % _WISHES_EVERY) if kind == "chaos" else None
        body = orjson.dumps({"id": number, "type": kind, "wish": wish})
        headers = [("id", number.encode())] if named else []
        producer.produce(self._world.topic, body, headers=headers, partition=partition, on_delivery=delivered)

    def _post(self) -> None:
        with requests.Session() as session:
            while not self._ending.wait(1 / _POSTS_PER_SECOND):
                body = {"id": self._next(), "type": "chaos-http"}
                with suppress(requests.RequestException):
                    if session.post(f"{self._world.url}/messages", json=body, timeout=30).status_code == 202:
                        self.acknowledged.append(body["id"])
                        self.ids.append(body["id"])

    def _watch(self) -> None:
        stored, since = 0, time.monotonic()
        while not self._ending.wait(0.25):
            with suppress(psycopg2.Error):
                count = self._world.count()
                if count != stored:
                    stored, since = count, time.monotonic()
            self.longest_stall = max(self.longest_stall, time.monotonic() - since)
