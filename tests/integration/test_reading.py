"""Reading back over HTTP what is in real PostgreSQL."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from bridge.publisher import KafkaPublisher
from tasks import database
from tests.world import World


@pytest.fixture
def client(ready: World) -> Iterator[FlaskClient]:
    database.configure(ready.variables["DATABASE_URL"], "test", connections=4)
    settings = ready.settings(kafka_brokers="127.0.0.1:1")
    yield create_app(settings, KafkaPublisher(settings)).test_client()
    database.database.close()
    database.database.close_all()


@pytest.fixture
def rows(ready: World) -> list[str]:
    """25 messages, five for each stored_at, newest first."""
    ready.sql(
        'INSERT INTO message (id, topic, "partition", "offset", produced_at, stored_at, type, key, payload)'
        " SELECT gen_random_uuid(), 't' || n % 2, 0, n, now(), timestamptz '2026-01-01Z' + n / 5 * interval '1 hour',"
        " 'type-' || n % 3, 'k' || n % 4, jsonb_build_object('n', n) FROM generate_series(0, 24) n"
    )
    return [str(row[0]) for row in ready.sql("SELECT id FROM message ORDER BY stored_at DESC, id DESC")]


def body(answer: TestResponse) -> dict[str, Any]:
    parsed: dict[str, Any] = answer.get_json()
    return parsed


def ids(answer: TestResponse) -> list[str]:
    return [message["id"] for message in body(answer)["messages"]]


def test_pages_follow_each_other_without_gap_or_repetition_under_writes(
    ready: World, client: FlaskClient, rows: list[str]
) -> None:
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get("/messages", query_string={"limit": 4, **({"cursor": cursor} if cursor else {})})
        seen += ids(page)
        cursor = body(page)["next"]
        ready.sql(
            'INSERT INTO message (id, topic, "partition", "offset", produced_at)'
            " VALUES (gen_random_uuid(), 'new', 0, 0, now())"
        )
    assert seen == rows


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("type=type-1", 8),
        ("key=k3", 6),
        ("topic=t0", 13),
        ("topic=t0&key=k2&type=type-0", 2),
        ("from=2026-01-01T01:00:00Z&to=2026-01-01T03:00:00Z", 10),
        ("type=none", 0),
    ],
)
def test_filters(client: FlaskClient, rows: list[str], query: str, found: int) -> None:
    assert len(ids(client.get(f"/messages?{query}"))) == found


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=1001", "from=yesterday", "to=2026-01-01", "cursor=x", "tpye=a"]
)
def test_wrong_parameters_are_said_to_be(client: FlaskClient, query: str) -> None:
    answer = client.get(f"/messages?{query}")
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
    assert body(answer)["detail"]


def test_one_message_with_its_numbers_as_they_were_sent(ready: World, client: FlaskClient) -> None:
    message_id = str(uuid.uuid4())
    ready.sql(
        'INSERT INTO message (id, topic, "partition", "offset", produced_at, payload)'
        " VALUES (%s, 't', 1, 2, now(), '{\"n\": 1.10, \"large\": 123456789012345678901234567890}')",
        message_id,
    )
    answer = client.get(f"/messages/{message_id}")
    assert answer.status_code == 200
    assert b'"payload":{"n": 1.10, "large": 123456789012345678901234567890}' in answer.data


def test_what_is_not_stored_is_not_found(client: FlaskClient) -> None:
    assert client.get(f"/messages/{uuid.uuid4()}").status_code == 404
    assert client.get("/messages/no-uuid").status_code == 404


def test_a_dead_letter_is_said_to_be_one_until_it_is_redriven(ready: World, client: FlaskClient) -> None:
    letter_id = str(uuid.uuid4())
    ready.sql(
        'INSERT INTO dead_letter (id, topic, "partition", "offset", produced_at, reason, detail)'
        " VALUES (%s, 't', 0, 0, now(), 'nul', 'd')",
        letter_id,
    )
    assert body(client.get(f"/messages/{letter_id}"))["type"] == "/problems/dead-letter"
    ready.sql("UPDATE dead_letter SET state = 'redriven'")
    assert body(client.get(f"/messages/{letter_id}"))["type"] == "/problems/not-found"


def test_readiness_names_what_is_away(client: FlaskClient) -> None:
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert body(answer)["services"]["postgresql"]["ok"]
    assert not body(answer)["services"]["kafka"]["ok"]
    assert client.get("/health").status_code == 200


def test_a_database_that_is_away_is_a_503_and_comes_back(ready: World, client: FlaskClient) -> None:
    assert client.get("/messages").status_code == 200
    ready.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'backend-test' AND datname = current_database()"
    )
    answers = [client.get("/messages").status_code for _ in range(2)]
    assert answers[-1] == 200
    assert answers[0] in (200, 503)
