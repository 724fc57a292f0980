"""Reading back over HTTP what is in real PostgreSQL."""

import csv
import io
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest
import requests
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api import limits
from api.app import create_app
from bridge.publisher import KafkaPublisher
from tasks import database, reading
from tests.waiting import wait_until
from tests.world import World

_MANY = (
    'INSERT INTO message (id, topic, "partition", "offset", produced_at, stored_at, payload)'
    " SELECT gen_random_uuid(), 't', 0, n, now(), now() - n / 100 * interval '1 s',"
    " jsonb_build_object('n', n, 'deep', jsonb_build_object('list', jsonb_build_array(n, 'x')))"
    " FROM generate_series(1, %s) n"
)
_LARGE = (
    'INSERT INTO message (id, topic, "partition", "offset", produced_at, payload)'
    " SELECT gen_random_uuid(), 't', 0, n, now(), to_jsonb(repeat(md5(n::text), 28125)) FROM generate_series(1, %s) n"
)
_END_CONNECTIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = %s AND datname = current_database()"
)
_INDEX_USE = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'message_payload'"


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


def _let_in(url: str) -> int:
    """The status of the first answer that is no refusal: where there is one place, another request may have it."""
    while (status := _status(url)) == 503:
        pass
    return status


def _status(url: str) -> int:
    with requests.get(url, stream=True, timeout=60) as answer:
        return answer.status_code


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
    ready.sql(_END_CONNECTIONS, "backend-test")
    answers = [client.get("/messages").status_code for _ in range(2)]
    assert answers[-1] == 200
    assert answers[0] in (200, 503)


def test_an_export_has_every_message_that_matches(client: FlaskClient, rows: list[str]) -> None:
    lines = client.get("/messages/export").get_data().splitlines()
    assert [orjson.loads(line)["id"] for line in lines] == rows
    table = list(csv.DictReader(io.StringIO(client.get("/messages/export?format=csv&topic=t1").get_data(as_text=True))))
    assert len(table) == 12
    assert all(row["topic"] == "t1" and orjson.loads(row["payload"])["n"] % 2 for row in table)


def test_an_export_takes_as_many_pages_as_it_needs(ready: World, client: FlaskClient) -> None:
    ready.sql(_MANY, 5_500)
    lines = client.get("/messages/export").get_data().splitlines()
    assert len({orjson.loads(line)["id"] for line in lines}) == len(lines) == 5_500


def test_a_cell_of_a_table_is_no_formula(ready: World, client: FlaskClient) -> None:
    ready.sql(
        'INSERT INTO message (id, topic, "partition", "offset", produced_at, type)'
        " VALUES (gen_random_uuid(), 't', 0, 0, now(), '=1+1')"
    )
    ready.sql("UPDATE message SET payload = '-1'")
    text = client.get("/messages/export?format=csv").get_data(as_text=True)
    assert ",'=1+1," in text
    assert text.endswith(",-1\r\n")


def test_an_export_needs_little_memory_and_leaves_no_connection_behind(ready: World) -> None:
    server = ready.serve(web_processes="1")
    ready.sql(_MANY, 200_000)
    process = server.family()[-1]
    assert requests.get(f"{ready.url}/messages/export", {"topic": "none"}, timeout=30).content == b""
    before = process.memory_info().rss
    with requests.get(f"{ready.url}/messages/export", stream=True, timeout=60) as answer:
        assert sum(1 for _ in answer.iter_lines(chunk_size=65536)) == 200_000
    assert process.memory_info().rss - before < 20 << 20
    for _ in range(40):  # more than the pool has
        with requests.get(f"{ready.url}/messages/export", stream=True, timeout=60) as answer:
            next(answer.iter_content(1000))
    assert requests.get(f"{ready.url}/messages", timeout=30).status_code == 200


def test_large_messages_are_exported_and_paged_in_little_memory(ready: World) -> None:
    process = ready.serve(web_processes="1").family()[-1]
    ready.sql(_LARGE, 300)
    before = process.memory_info().rss
    peak = 0
    with requests.get(f"{ready.url}/messages/export", stream=True, timeout=60) as answer:
        lines = 0
        for piece in answer.iter_content(1 << 20):
            lines += piece.count(b"\n")
            peak = max(peak, process.memory_info().rss - before)
    assert lines == 300
    page = requests.get(f"{ready.url}/messages?limit=1000", timeout=60).json()
    assert len(page["messages"]) < 100
    rest = requests.get(f"{ready.url}/messages", {"limit": 1000, "cursor": page["next"]}, timeout=60).json()
    assert not {one["id"] for one in page["messages"]} & {one["id"] for one in rest["messages"]}
    assert peak < 150 << 20


def test_an_export_outlives_the_connection_it_began_with(ready: World) -> None:
    ready.serve(web_processes="1")
    ready.sql(_MANY, 20_000)
    with requests.get(f"{ready.url}/messages/export", stream=True, timeout=60) as answer:
        lines = answer.iter_lines(chunk_size=1024)
        next(lines)
        ready.sql(_END_CONNECTIONS, "backend-serve")
        assert sum(1 for _ in lines) == 19_999


def test_an_export_that_cannot_end_is_not_taken_for_a_whole_one(ready: World) -> None:
    ready.serve(web_processes="1")
    ready.sql(_MANY, 50_000)
    with requests.get(f"{ready.url}/messages/export", stream=True, timeout=60) as answer:
        lines = answer.iter_lines(chunk_size=1024)
        next(lines)
        ready.sql("ALTER TABLE message RENAME TO elsewhere")
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(lines)
    assert requests.get(f"{ready.url}/messages/export", timeout=60).status_code >= 500


def test_few_exports_and_waits_at_once_leave_room_for_others(ready: World) -> None:
    ready.serve(web_processes="1", web_threads="1")
    ready.sql(_MANY, 50_000)
    exports = [requests.get(f"{ready.url}/messages/export", stream=True, timeout=60) for _ in range(limits.EXPORTS)]
    assert [answer.status_code for answer in exports] == [200] * limits.EXPORTS
    refused = requests.get(f"{ready.url}/messages/export", timeout=60)
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/overloaded")
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(_let_in, f"{ready.url}/messages/{uuid.uuid4()}?wait=10")
        answers: list[int] = []
        while not waits.done():
            answers.append(_status(f"{ready.url}/messages"))
        assert answers.count(200) > len(answers) / 2, "who waits keeps no place from others"
        assert waits.result() == 404
    for answer in exports:
        answer.close()
    wait_until(lambda: _status(f"{ready.url}/messages/export") == 200, "there is room for an export again")


def test_what_many_payloads_contain_is_found_from_the_newest_on(ready: World, client: FlaskClient) -> None:
    ready.sql(_MANY, 50_000)
    ready.sql("ANALYZE message")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(3):
        answer = client.get("/messages", query_string={"contains": '{"deep": {"list": ["x"]}}', "limit": 60, **cursor})
        seen += ids(answer)
        cursor = {"cursor": body(answer)["next"]}
    newest = ready.sql("SELECT id FROM message ORDER BY stored_at DESC, id DESC LIMIT 180")
    assert seen == [str(row[0]) for row in newest]
    wanted = reading.Filter(contains='{"deep": {"list": ["x"]}}')
    query, values = reading._query(wanted, None, 60).sql()
    plan = "\n".join(row[0] for row in ready.sql(f"EXPLAIN {query}", *values))
    assert "message_stored_at" in plan, plan
    query, values = reading._query(reading.Filter(contains='{"n": 7}'), None, 60).sql()
    plan = "\n".join(row[0] for row in ready.sql(f"EXPLAIN {query}", *values))
    assert "message_payload" in plan, plan
    assert "message_stored_at" not in plan, plan


@pytest.mark.parametrize("wrong", ["", "{", "[1e400]", '"\\u0000"', '"\\ud800"', "NaN", "[" * 2000])
def test_what_no_payload_contains_is_refused(client: FlaskClient, wrong: str) -> None:
    answer = client.get("/messages", query_string={"contains": wrong})
    assert (answer.status_code, body(answer)["parameter"]) == (400, "contains")


def test_an_index_serves_what_payloads_contain(ready: World, client: FlaskClient) -> None:
    ready.sql(_MANY, 50_000)
    ready.sql("ANALYZE message")
    answer = client.get("/messages", query_string={"contains": '{"n": 7}', "from": "2020-01-01T00:00:00Z"})
    assert [message["payload"] for message in body(answer)["messages"]] == [{"n": 7, "deep": {"list": [7, "x"]}}]
    assert len(ids(client.get("/messages", query_string={"contains": '{"deep": {"list": ["x", 9]}}'}))) == 1
    assert len(ids(client.get("/messages", query_string={"contains": "{}", "limit": 3}))) == 3
    ready.sql("SELECT pg_stat_force_next_flush()")
    wait_until(lambda: ready.sql(_INDEX_USE)[0][0] >= 2, "the index of payloads was used")


def test_a_message_can_be_waited_for(ready: World, client: FlaskClient) -> None:
    message_id = uuid.uuid4()
    began = time.monotonic()
    assert client.get(f"/messages/{message_id}?wait=0.3").status_code == 404
    assert time.monotonic() - began < 5
    statement = 'INSERT INTO message (id, topic, "partition", "offset", produced_at) VALUES (%s, \'t\', 0, 0, now())'
    late = threading.Timer(0.5, ready.sql, (statement, str(message_id)))
    late.start()
    assert client.get(f"/messages/{message_id}?wait=10").status_code == 200
    late.join()
    assert client.get(f"/messages/{message_id}?wait=11").status_code == 400
