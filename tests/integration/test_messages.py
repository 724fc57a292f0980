"""Reads over HTTP from a real PostgreSQL."""

import random
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tasks.message import Record
from tasks.store import batches, leaves, messages, payload_index
from tests.records import store_all
from tests.statements import END_CONNECTIONS, MANY_MESSAGES
from tests.waiting import BUSY, wait_until
from tests.world import World

_INDEX_USE = "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname LIKE '%%\\_payload'"


def body(answer: TestResponse) -> dict[str, Any]:
    parsed: dict[str, Any] = answer.get_json()
    return parsed


def ids(answer: TestResponse) -> list[str]:
    return [message["id"] for message in body(answer)["messages"]]


def test_types_and_keys_of_any_length_are_stored_and_found(tables: World, client: FlaskClient) -> None:
    # Random, because PostgreSQL compresses what repeats before it looks whether it fits into an index.
    key, kind = (random.Random(seed).randbytes(50_000).hex() for seed in (1, 2))
    value = orjson.dumps({"type": kind})
    store_all(batches, [Record("topic", 0, 0, 1, key.encode(), value, ()), Record("topic", 0, 1, 1, b"k", b"{}", ())])
    [stored] = body(client.get("/messages?limit=2"))["messages"][1:]
    assert (stored["key"], stored["type"]) == (key, kind)
    for query in (messages.Filter(key=key), messages.Filter(type=kind), messages.Filter(key=key, type=kind)):
        assert [str(found.id) for found in messages.page(query, None, 2).messages] == [stored["id"]]
    assert not messages.page(messages.Filter(key=key[1:]), None, 2).messages


@pytest.mark.parametrize("few", [0, 10, 10_000])
def test_a_key_with_few_messages_is_read_as_one_with_many(
    client: FlaskClient, rows: list[str], monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    wanted = ids(client.get("/messages?key=k3"))
    monkeypatch.setattr(messages, "_FEW", few)
    monkeypatch.setattr(messages, "_LOOKED_AT", 5)
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = body(
            client.get("/messages", query_string={"key": "k3", "limit": 2, **({"cursor": cursor} if cursor else {})})
        )
        found += [message["id"] for message in page["messages"]]
        cursor = page["next"]
    assert found == wanted == [one for one in rows if one in wanted]
    assert len(found) == 6


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
    message_id = "00000000-0000-8000-8000-000000000001"  # as one made from a place
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
    ready.sql(END_CONNECTIONS, "backend-test")
    answers = [client.get("/messages").status_code for _ in range(2)]
    assert answers[-1] == 200
    assert answers[0] in (200, 503)


def test_what_many_payloads_contain_is_found_from_the_newest_on(ready: World, client: FlaskClient) -> None:
    payload_index.switch(True)
    ready.sql(MANY_MESSAGES, 50_000)
    ready.sql("ANALYZE message")
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(3):
        answer = client.get("/messages", query_string={"contains": '{"deep": {"list": ["x"]}}', "limit": 60, **cursor})
        seen += ids(answer)
        cursor = {"cursor": body(answer)["next"]}
    newest = ready.sql("SELECT id FROM message ORDER BY stored_at DESC, id DESC LIMIT 180")
    assert seen == [str(row[0]) for row in newest]
    period = next(leaves.periods(None, datetime.now(UTC)))
    wanted = messages.Filter(contains='{"deep": {"list": ["x"]}}')
    query, values = messages._select(wanted, None, None, period, 60, False).sql()
    plan = "\n".join(row[0] for row in ready.sql(f"EXPLAIN {query}", *values))
    assert "_stored_at_id_idx" in plan, plan
    query, values = messages._select(messages.Filter(contains='{"n": 7}'), None, None, period, 60, True).sql()
    plan = "\n".join(row[0] for row in ready.sql(f"EXPLAIN {query}", *values))
    assert "_payload" in plan, plan
    assert "_stored_at_id_idx" not in plan, plan


def test_the_few_messages_of_a_key_are_found_by_the_index(ready: World, client: FlaskClient) -> None:
    ready.sql(MANY_MESSAGES, 50_000)
    ready.sql('UPDATE message SET key = "offset" % 20000')
    for _ in range(2):  # also before PostgreSQL knows how many keys there are
        assert len(ids(client.get("/messages?key=7"))) in (2, 3)
        period = next(leaves.periods(None, datetime.now(UTC)))
        query, values = messages._select(messages.Filter(key="7"), None, None, period, 60, True).sql()
        plan = "\n".join(row[0] for row in ready.sql(f"EXPLAIN {query}", *values))
        assert "hashtextextended_idx" in plan, plan
        ready.sql("ANALYZE message")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"type": "rare"}, 5),
        ({"type": "rare", "key": "often"}, 5),
        ({"contains": '{"n": 7}'}, 1),
        ({"type": "nobody's"}, 0),
        ({"topic": "nobody's"}, 0),
    ],
)
def test_a_page_looks_at_so_many_messages_and_the_next_goes_on(
    ready: World, client: FlaskClient, query: dict[str, str], found: int
) -> None:
    ready.sql(MANY_MESSAGES, 50_000)
    ready.sql("UPDATE message SET key = 'often'")
    ready.sql("UPDATE message SET type = 'rare' WHERE (payload->>'n')::int % 10000 = 7")
    ready.sql("VACUUM ANALYZE message")
    pages = [body(client.get("/messages", query_string=query))]
    while pages[-1]["next"] is not None:
        pages.append(body(client.get("/messages", query_string={**query, "cursor": pages[-1]["next"]})))
    assert len(pages) == 3
    assert len({message["id"] for page in pages for message in page["messages"]}) == found
    exported = client.get("/messages/export", query_string=query)
    assert len(exported.data.splitlines()) == found


@pytest.mark.parametrize("wrong", ["", "{", "[1e400]", '"\\u0000"', '"\\ud800"', "NaN", "[" * 2000])
def test_what_no_payload_contains_is_refused(client: FlaskClient, wrong: str) -> None:
    answer = client.get("/messages", query_string={"contains": wrong})
    assert (answer.status_code, body(answer)["parameter"]) == (400, "contains")


def test_an_index_serves_what_payloads_contain(ready: World, client: FlaskClient) -> None:
    payload_index.switch(True)
    ready.sql(MANY_MESSAGES, 50_000)
    ready.sql("ANALYZE message")
    answer = client.get("/messages", query_string={"contains": '{"n": 7}', "from": "2020-01-01T00:00:00Z"})
    assert [message["payload"] for message in body(answer)["messages"]] == [{"n": 7, "deep": {"list": [7, "x"]}}]
    assert len(ids(client.get("/messages", query_string={"contains": '{"deep": {"list": ["x", 9]}}'}))) == 1
    assert len(ids(client.get("/messages", query_string={"contains": "{}", "limit": 3}))) == 3
    ready.sql("SELECT pg_stat_force_next_flush()")
    wait_until(lambda: ready.sql(_INDEX_USE)[0][0] >= 2, "the index of payloads was used")


def test_a_message_can_be_waited_for(ready: World, client: FlaskClient) -> None:
    message_id = "00000000-0000-8000-8000-000000000001"  # as one made from a place
    began = time.monotonic()
    assert client.get(f"/messages/{message_id}?wait=0.3").status_code == 404
    assert time.monotonic() - began < 5 * BUSY
    statement = 'INSERT INTO message (id, topic, "partition", "offset", produced_at) VALUES (%s, \'t\', 0, 0, now())'
    late = threading.Timer(0.5, ready.sql, (statement, message_id))
    late.start()
    assert client.get(f"/messages/{message_id}?wait=10").status_code == 200
    late.join()
    assert client.get(f"/messages/{message_id}?wait=11").status_code == 400
