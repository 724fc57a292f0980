"""Exports from a real PostgreSQL: complete, in little memory, whatever happens meanwhile."""

import csv
import io
import uuid
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
import requests
from flask.testing import FlaskClient

from api import limits
from tests.statements import END_CONNECTIONS, MANY_MESSAGES
from tests.waiting import wait_until
from tests.world import World

_LARGE = (
    'INSERT INTO message (id, topic, "partition", "offset", produced_at, payload)'
    " SELECT gen_random_uuid(), 't', 0, n, now(), to_jsonb(repeat(md5(n::text), 28125)) FROM generate_series(1, %s) n"
)


def _let_in(url: str) -> int:
    """The status of the first response that is not a rejection: another request may have the only slot."""
    while (status := _status(url)) == 503:
        pass
    return status


def _status(url: str) -> int:
    with requests.get(url, stream=True, timeout=60) as answer:
        return answer.status_code


def test_an_export_has_every_message_that_matches(client: FlaskClient, rows: list[str]) -> None:
    lines = client.get("/messages/export").get_data().splitlines()
    assert [orjson.loads(line)["id"] for line in lines] == rows
    table = list(csv.DictReader(io.StringIO(client.get("/messages/export?format=csv&topic=t1").get_data(as_text=True))))
    assert len(table) == 12
    assert all(row["topic"] == "t1" and orjson.loads(row["payload"])["n"] % 2 for row in table)


def test_an_export_takes_as_many_pages_as_it_needs(ready: World, client: FlaskClient) -> None:
    ready.sql(MANY_MESSAGES, 5_500)
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


def test_what_has_no_timestamp_is_shown_and_exported_without_one(ready: World, client: FlaskClient) -> None:
    ready.sql('INSERT INTO message (id, topic, "partition", "offset") VALUES (gen_random_uuid(), \'t\', 0, 0)')
    assert orjson.loads(client.get("/messages").get_data())["messages"][0]["produced_at"] is None
    assert orjson.loads(client.get("/messages/export").get_data())["produced_at"] is None
    table = csv.DictReader(io.StringIO(client.get("/messages/export?format=csv").get_data(as_text=True)))
    assert [row["produced_at"] for row in table] == [""]


def test_an_export_needs_little_memory_and_leaves_no_connection_behind(ready: World) -> None:
    server = ready.serve(web_processes="1")
    ready.sql(MANY_MESSAGES, 200_000)
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
    ready.sql(MANY_MESSAGES, 20_000)
    with requests.get(f"{ready.url}/messages/export", stream=True, timeout=60) as answer:
        lines = answer.iter_lines(chunk_size=1024)
        next(lines)
        ready.sql(END_CONNECTIONS, "backend-serve")
        assert sum(1 for _ in lines) == 19_999


def test_an_export_that_cannot_end_is_not_taken_for_a_whole_one(ready: World) -> None:
    ready.serve(web_processes="1")
    ready.sql(MANY_MESSAGES, 50_000)
    with requests.get(f"{ready.url}/messages/export", stream=True, timeout=60) as answer:
        lines = answer.iter_lines(chunk_size=1024)
        next(lines)
        ready.sql("ALTER TABLE message RENAME TO elsewhere")
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(lines)
    assert requests.get(f"{ready.url}/messages/export", timeout=60).status_code >= 500


def test_few_exports_and_waits_at_once_leave_room_for_others(ready: World) -> None:
    ready.serve(web_processes="1", web_threads="1")
    ready.sql(MANY_MESSAGES, 50_000)
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
