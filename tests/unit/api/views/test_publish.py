"""Batches, CloudEvents and refusals of POST /messages, without servers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from cloudevents.v1.conversion import to_binary, to_json, to_structured
from cloudevents.v1.http import CloudEvent
from flask.testing import FlaskClient

from api import services
from api.app import create_app
from api.services import Services
from bridge.kafka.publisher import Overloaded, Place, Publisher, UnknownOutcome
from tasks.config import settings
from tasks.errors import Unavailable
from tasks.message import Headers, decode
from tests.fakes import MemoryPublisher

EVENT = {"id": "7", "source": "/shop", "type": "order.paid", "subject": "größe", "partitionkey": "k"}


@pytest.fixture
def publisher() -> MemoryPublisher:
    return MemoryPublisher()


@pytest.fixture
def client(publisher: MemoryPublisher) -> Iterator[FlaskClient]:
    variables = {"KAFKA_TOPICS": "messages,orders", "MAX_BODY_BYTES": "300", "MAX_BATCH_BYTES": "9000"}
    yield create_app(settings.load({}, {**variables, "MAX_BATCH_ITEMS": "20"}), publisher).test_client()


def post(client: FlaskClient, path: str = "/messages", **options: Any) -> Any:
    return client.post(path, **options)


def batch(client: FlaskClient, body: bytes, kind: str = "application/json") -> Any:
    return client.post("/messages/batch", data=body, content_type=kind)


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b'[{"n": 1}, {"n":  2.0}]', "application/json"), (b'{"n": 1}\r\n\n{"n":  2.0}\n', "application/x-ndjson")],
)
def test_a_batch_reaches_kafka_in_order_as_it_was_sent(
    client: FlaskClient, publisher: MemoryPublisher, body: bytes, kind: str
) -> None:
    answer = batch(client, body, kind)
    assert (answer.status_code, answer.json["accepted"]) == (202, 2)
    assert [record.value for record in publisher.records] == [b'{"n": 1}', b'{"n":  2.0}']
    assert [decode(record).id.hex() for record in publisher.records] == [
        item["id"].replace("-", "") for item in answer.json["items"]
    ]


def test_when_an_item_is_invalid_nothing_is_sent_and_each_is_told(
    client: FlaskClient, publisher: MemoryPublisher
) -> None:
    bad = ["{}", "7", '{"topic": "none"}', '{"headers": {"a": 1}}', '{"a": "\\u0000"}', '{"a": "%s"}' % ("x" * 400)]
    answer = batch(client, f"[{','.join(bad)}]".encode())
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert answer.json["type"] == "/problems/invalid-items"
    items = answer.json["items"]
    assert [item["status"] for item in items] == ["not_sent", *["invalid"] * 5]
    assert [item["problem"]["type"] for item in items[1:]] == [
        f"/problems/{name}" for name in ("not-an-object", "unknown-topic", "bad-field", "nul", "too-large")
    ]
    assert [item["problem"]["pointer"] for item in items[1:4]] == ["/1", "/2/topic", "/3/headers"]
    assert publisher.records == []


SAME = "0b6f3f5e-2f7c-4d59-8a37-1f1f6a1f8c11"


def test_one_id_with_different_contents_is_refused(client: FlaskClient, publisher: MemoryPublisher) -> None:
    contents: list[dict[str, object]] = [
        {"n": 1},
        {"n": 1.0},
        {"n": 2},
        {"n": 1, "key": "k"},
        {"n": 1, "topic": "orders"},
        {"n": 2},
    ]
    answer = batch(client, orjson.dumps([{"id": SAME, **fields} for fields in contents]))
    assert (answer.status_code, answer.json["type"]) == (422, "/problems/invalid-items")
    items = answer.json["items"]
    assert [item["status"] for item in items] == ["not_sent"] * 2 + ["invalid"] * 2 + ["not_sent", "invalid"]
    assert {item["problem"]["type"] for item in items if "problem" in item} == {"/problems/id-conflict"}
    assert items[2]["problem"]["pointer"] == "/2/id"
    assert publisher.records == []


def test_an_item_repeated_in_a_batch_is_sent_as_it_is(client: FlaskClient, publisher: MemoryPublisher) -> None:
    body = [{"id": written, "headers": {"traceparent": str(n)}} for n, written in enumerate((SAME, SAME))]
    assert batch(client, b"[%s, %s]" % tuple(map(orjson.dumps, body))).status_code == 422, "the payloads differ"
    assert batch(client, orjson.dumps([{"id": SAME, "n": 1}] * 2)).json["accepted"] == 2
    assert len(publisher.records) == 2


def test_one_event_of_two_types_is_a_conflict(client: FlaskClient) -> None:
    made = [{"specversion": "1.0", **EVENT, "type": kind} for kind in ("order.paid", "order.refunded")]
    answer = batch(client, orjson.dumps(made), "application/cloudevents-batch+json")
    assert (answer.status_code, answer.json["items"][1]["problem"]["type"]) == (422, "/problems/id-conflict")


class Partly(MemoryPublisher):
    """Fails for some messages, at once or when waited for."""

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> Callable[[], Place]:
        value = value or b""
        if b"away" in value:
            raise Unavailable("Kafka does not respond")
        if b"full" in value:
            raise Overloaded("Too much waits")

        def unknown() -> Place:
            raise UnknownOutcome("Kafka did not acknowledge")

        return unknown if b"lost" in value else super().send(topic, key, value, headers, partition)


def use(client: FlaskClient, publisher: Publisher) -> None:
    """Let the application publish through `publisher`."""
    app = client.application
    services.register(app, replace(app.extensions["services"], publisher=publisher))


def test_when_kafka_takes_a_part_each_item_is_told(client: FlaskClient) -> None:
    use(client, Partly())
    answer = batch(client, b'[{"a": "away"}, {}, {"a": "lost"}, {"a": "full"}]')
    items = answer.json["items"]
    assert (answer.status_code, answer.json["accepted"]) == (207, 1)
    assert [item["status"] for item in items] == ["failed", "accepted", "unknown", "failed"]
    assert [item["step"] for item in items if "step" in item] == ["publishing"] * 3
    assert all(item["id"] for item in items)


@pytest.mark.parametrize(
    ("body", "slug"), [(b'[{"a": "away"}]', "unavailable"), (b'[{"a": "away"}, {"a": "lost"}]', "unknown-outcome")]
)
def test_when_kafka_takes_none_it_is_503(client: FlaskClient, body: bytes, slug: str) -> None:
    use(client, Partly())
    answer = batch(client, body)
    assert (answer.status_code, answer.json["type"]) == (503, f"/problems/{slug}")
    assert len(answer.json["items"]) == body.count(b"{")
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"{}", 400, "not-json"),
        (b"[{}", 400, "not-json"),
        (b"[\xff]", 400, "not-json"),
        (b"[" + b"{}," * 20 + b"{}]", 413, "too-large"),
        (b"[" + b"," * 2100 + b"]", 413, "too-large"),
        (b"[" + b" " * 9000 + b"]", 413, "too-large"),
    ],
)
def test_a_body_that_is_no_batch_is_refused_whole(client: FlaskClient, body: bytes, status: int, slug: str) -> None:
    answer = batch(client, body)
    assert (answer.status_code, answer.json["type"]) == (status, f"/problems/{slug}")


def test_an_empty_batch_is_accepted(client: FlaskClient) -> None:
    assert batch(client, b"[]").json == {"accepted": 0, "items": []}


def test_cloudevents_of_the_sdk_are_taken_in_all_modes(client: FlaskClient, publisher: MemoryPublisher) -> None:
    event = CloudEvent(EVENT, {"sum": 3})
    structured_headers, structured = to_structured(event)
    binary_headers, binary = to_binary(event)
    answers = [
        client.post("/messages", data=structured, headers=structured_headers),
        client.post("/messages", data=binary, headers=binary_headers),
        batch(client, b"[" + to_json(event) + b"]", "application/cloudevents-batch+json"),
    ]
    assert [answer.status_code for answer in answers] == [202] * 3, [answer.json for answer in answers]
    ids = {answers[0].json["id"], answers[1].json["id"], answers[2].json["items"][0]["id"]}
    assert len(ids) == 1, "source and id name one event, whatever its mode"
    assert {record.key for record in publisher.records} == {b"k"}
    assert {decode(record).type for record in publisher.records} == {"order.paid"}
    assert orjson.loads(publisher.records[1].value or b"") == {"sum": 3}
    assert dict(publisher.records[1].headers or ())["ce_subject"] == "größe".encode()


@pytest.mark.parametrize(
    ("change", "pointer"), [({"specversion": "2.0"}, "/specversion"), ({"id": ""}, "/id"), ({"source": 1}, "/source")]
)
def test_what_is_no_cloudevent_is_refused(client: FlaskClient, change: dict[str, Any], pointer: str) -> None:
    body = orjson.dumps({"specversion": "1.0", **EVENT, **change})
    answer = post(client, data=body, content_type="application/cloudevents+json")
    assert (answer.status_code, answer.json["type"], answer.json["pointer"]) == (400, "/problems/bad-event", pointer)


def test_data_that_is_no_json_is_refused(client: FlaskClient) -> None:
    headers, _ = to_binary(CloudEvent({**EVENT, "datacontenttype": "text/plain"}, "text"))
    assert client.post("/messages", data=b"text", headers=headers).status_code == 415


def test_the_topic_may_be_a_parameter(client: FlaskClient, publisher: MemoryPublisher) -> None:
    assert client.post("/messages?topic=orders", json={"topic": "messages"}).status_code == 202
    assert publisher.records[0].topic == "orders"
    assert post(client, "/messages?topic=none", json={}).json["type"] == "/problems/unknown-topic"
    assert post(client, "/messages?tropic=orders", json={}).json["type"] == "/problems/bad-parameter"


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({}, "/messages", 401),
        ({"Authorization": "Bearer wrong-secret"}, "/messages", 401),
        ({"Authorization": "Bearer reader-secret"}, "/messages", 403),
        ({"Authorization": "Bearer writer-secret"}, "/messages", 202),
        ({"X-API-Key": "writer-secret"}, "/messages", 202),
    ],
)
def test_keys_have_scopes(publisher: MemoryPublisher, headers: dict[str, str], path: str, status: int) -> None:
    loaded = settings.load({}, {"API_KEYS": "read:reader-secret,write+operate:writer-secret"})
    assert "secret" not in repr(loaded.api_keys)
    client = create_app(loaded, publisher).test_client()
    answer = client.post(path, json={}, headers=headers)
    assert answer.status_code == status
    assert client.get("/health").status_code == 200
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (answer.headers.get("WWW-Authenticate") == "Bearer") == (status == 401)


def test_more_requests_than_there_is_room_for_are_refused_soon(client: FlaskClient) -> None:
    own: Services = client.application.extensions["services"]
    for _ in range(own.settings.web_threads):
        own.limits.publishing.acquire()
    answer = post(client, json={})
    assert (answer.status_code, answer.json["type"]) == (503, "/problems/overloaded")
    assert answer.headers["Retry-After"]
    assert client.get("/health").status_code == 200
    own.limits.publishing.release()
    assert client.post("/messages", json={}).status_code == 202
    assert client.post("/messages", json={}).status_code == 202, "the place was given back"
