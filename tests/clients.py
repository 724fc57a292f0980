"""Clients of one test: a Kafka producer other than ours, HTTP, SQL."""

import contextlib
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import psycopg2
import requests
from confluent_kafka import Producer


class Clients:
    """Talks to the servers that `variables` name, and to the API at `url`."""

    variables: dict[str, str]
    topic: str
    url: str

    def produce(
        self,
        values: Sequence[bytes | None],
        topic: str | None = None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int = -1,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Produce records with confluent-kafka, another producer than ours; all are acknowledged.

        Some of `events` have their id in the header `id`, like rows of an outbox; the others have only their place.
        """
        failed: list[object] = []
        producer = Producer({"bootstrap.servers": self.variables["KAFKA_BROKERS"], "acks": "all", **(options or {})})
        for value in values:
            producer.produce(
                topic or self.topic,
                value,
                key,
                partition=partition,
                headers=list(headers) or _outbox_header(value),
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
            producer.poll(0)
        assert producer.flush(30) == 0
        assert not failed

    def post(self, **fields: Any) -> requests.Response:
        return requests.post(f"{self.url}/messages", json=fields, timeout=30)

    def get(self, message_id: str) -> Any:
        answer = requests.get(f"{self.url}/messages/{message_id}", timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return execute(self.variables["DATABASE_URL"], statement, *values)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        """A session of another program, whose locks are held until the block ends."""
        connection = psycopg2.connect(self.variables["DATABASE_URL"])
        try:
            yield connection
        finally:
            connection.close()


_FROM_AN_OUTBOX = re.compile(rb'\{"id":"([0-9a-f-]{36})","type":"type-[024]"')


def events(count: int) -> dict[str, bytes]:
    """`count` records that are all different, by their ids."""
    made = {}
    for number in range(count):
        message_id = str(uuid.uuid4())
        made[message_id] = orjson.dumps({"id": message_id, "type": f"type-{number % 5}", "number": number})
    return made


def _outbox_header(value: bytes | None) -> list[tuple[str, bytes]]:
    found = _FROM_AN_OUTBOX.match(value or b"")
    return [("id", found[1])] if found else []


def execute(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of one statement, in a session of its own."""
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()
