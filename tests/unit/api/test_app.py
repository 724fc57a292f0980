"""The API without servers: every answer a publisher can bring about, and every refusal before it is asked."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from bridge.kafka.publisher import TooLarge, UnknownOutcome
from tasks.config import settings
from tasks.errors import Unavailable
from tasks.message import ID_HEADER, decode
from tests.fakes import MemoryPublisher

MESSAGE_ID = "0b6f3f5e-2f7c-4d59-8a37-1f1f6a1f8c11"


@pytest.fixture
def publisher() -> MemoryPublisher:
    return MemoryPublisher()


@pytest.fixture
def client(publisher: MemoryPublisher) -> Iterator[FlaskClient]:
    loaded = settings.load(
        {}, {"KAFKA_TOPICS": "messages,orders", "MAX_BODY_BYTES": "1000", "CORS_ORIGINS": "http://a"}
    )
    yield create_app(loaded, publisher).test_client()


def post(client: FlaskClient, body: Any = None, **options: Any) -> Any:
    if isinstance(body, bytes):
        return client.post("/messages", **{"data": body, "content_type": "application/json", **options})
    return client.post("/messages", json=body, **options)


def test_202_says_where_the_message_lies(client: FlaskClient, publisher: MemoryPublisher) -> None:
    answer = post(client, {"id": MESSAGE_ID, "topic": "orders", "key": "ü", "headers": {"a": "b"}})
    assert answer.status_code == 202
    assert answer.json == {"id": MESSAGE_ID, "topic": "orders", "partition": 0, "offset": 0}
    assert answer.headers["Location"] == f"/messages/{MESSAGE_ID}"
    headers = [("a", b"b"), (ID_HEADER, MESSAGE_ID.encode())]
    assert (publisher.records[0].key, list(publisher.records[0].headers or ())) == ("ü".encode(), headers)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": "7"},
        {"id": MESSAGE_ID},
        {"id": MESSAGE_ID.upper()},
        {"headers": {"id": MESSAGE_ID}},
        {"specversion": "1.0", "id": "1", "source": "s"},
        {"specversion": "1.0", "id": MESSAGE_ID, "source": "s"},
    ],
)
def test_the_id_answered_is_the_id_it_will_be_stored_under(
    client: FlaskClient, publisher: MemoryPublisher, body: dict[str, Any]
) -> None:
    answered = post(client, body).json["id"]
    [record] = publisher.records
    assert decode(record).id.hex() == answered.replace("-", "")
    assert dict(record.headers or ())[ID_HEADER] == answered.encode()
    own = "source" not in body and MESSAGE_ID in str(body).lower()
    assert (answered == MESSAGE_ID) == own


def test_the_body_reaches_kafka_as_it_was_sent(client: FlaskClient, publisher: MemoryPublisher) -> None:
    post(client, b'{"b": 1.10,\n "a": 1}')
    assert publisher.records[0].value == b'{"b": 1.10,\n "a": 1}'


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"{", 400, "not-json"),
        (b"", 400, "not-json"),
        (b"\xff", 400, "invalid-utf8"),
        (b'{"a": "\\u0000"}', 400, "nul"),
        (b'{"a": NaN}', 400, "not-json"),
        (b"[" * 400 + b"]" * 400, 400, "not-an-object"),
        (b"[1]", 400, "not-an-object"),
        (b'{"topic": "none"}', 404, "unknown-topic"),
        (b'{"topic": 1}', 400, "bad-field"),
        (b'{"key": 1}', 400, "bad-field"),
        (b'{"id": 1}', 400, "bad-field"),
        (b'{"type": []}', 400, "bad-field"),
        (b'{"headers": {"a": 1}}', 400, "bad-field"),
        (b'{"headers": {"message-id": "x"}}', 400, "bad-field"),
        (b'{"a": "' + b"x" * 1000 + b'"}', 413, "too-large"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_never_published(
    client: FlaskClient, publisher: MemoryPublisher, body: bytes, status: int, slug: str
) -> None:
    answer = post(client, body)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert answer.json["type"] == f"/problems/{slug}"
    assert answer.json["status"] == status
    assert answer.json["detail"].endswith((".", ")")) or answer.json["detail"]
    assert publisher.records == []


def test_another_content_type_is_415(client: FlaskClient) -> None:
    assert post(client, b"{}", content_type="text/plain").status_code == 415
    assert post(client, b"{}", content_type="application/json; charset=utf-8").status_code == 202


@pytest.mark.parametrize(
    ("failure", "status", "slug"),
    [
        (Unavailable("Kafka does not respond"), 503, "unavailable"),
        (UnknownOutcome("Kafka did not acknowledge"), 503, "unknown-outcome"),
        (TooLarge("too large for the broker"), 413, "too-large"),
        (ValueError("a secret detail"), 500, "internal"),
    ],
)
def test_every_failure_of_the_publisher_is_a_problem(
    client: FlaskClient, publisher: MemoryPublisher, failure: Exception, status: int, slug: str
) -> None:
    publisher.failure = failure
    answer = post(client, {})
    assert (answer.status_code, answer.json["type"]) == (status, f"/problems/{slug}")
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert b"secret" not in answer.data


def test_what_http_refuses_is_a_problem_too(client: FlaskClient) -> None:
    missing, wrong_method = client.get("/nowhere"), client.delete("/messages")
    assert (missing.status_code, wrong_method.status_code) == (404, 405)
    assert missing.content_type == wrong_method.content_type == "application/problem+json"
    assert "POST" in wrong_method.headers["Allow"]


def test_health_does_not_flap_when_kafka_is_away(client: FlaskClient, publisher: MemoryPublisher) -> None:
    publisher.failure = Unavailable("away")
    assert client.get("/health").status_code == 200


def test_browsers_may_call_from_the_origins_set_and_no_others(client: FlaskClient) -> None:
    allowed = client.get("/health", headers={"Origin": "http://a"})
    refused = client.get("/health", headers={"Origin": "http://b"})
    assert allowed.headers.get("Access-Control-Allow-Origin") == "http://a"
    assert "Access-Control-Allow-Origin" not in refused.headers


def test_every_method_is_described(client: FlaskClient) -> None:
    described = client.get("/openapi.json").get_json()["paths"]
    found = {(path, method) for path, methods in described.items() for method in methods}
    rules = client.application.url_map.iter_rules()
    asked = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith(("/static", "/docs", "/openapi.json"))
    }
    assert found == asked
