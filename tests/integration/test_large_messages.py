"""Messages whose text is many times what their sender sent: no answer needs much memory, and none is cut silently."""

import csv
import io
import uuid
from typing import Any

import orjson
import psutil
import pytest
import requests

from tasks.message import Record
from tasks.store import batches
from tests.programs import peak_bytes
from tests.records import store_all
from tests.waiting import wait_until
from tests.world import World

_NUMBERS = 100_000
_GROWS = b"[" + b"1e308," * (_NUMBERS - 1) + b"1e308]"  # 600 kB as sent, 31 MB as PostgreSQL returns it
_WIDE = orjson.dumps("😀" + "x" * 1_900_000)  # shown, and four bytes a character in Python
_MOST = 64 << 20


@pytest.fixture
def process(tables: World) -> psutil.Process:
    """The API's process, after its first response."""
    process = tables.serve(web_processes="1").family()[-1]
    assert requests.get(f"{tables.url}/messages", timeout=30).status_code == 200
    return process


def _store(value: bytes, count: int, key: bytes = b"k", first: int = 0) -> None:
    for offset in range(first, first + count):
        store_all(batches, [Record("topic", 0, offset, 1, key, value, [("a", b"b")])])


def _pages(world: World) -> list[dict[str, Any]]:
    """All messages, page by page: those of large messages are short."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        query = {"limit": "1000", **({"cursor": cursor} if cursor else {})}
        page = requests.get(f"{world.url}/messages", query, timeout=60).json()
        found += page["messages"]
        cursor = page["next"]
    return found


def test_a_message_that_is_too_large_says_where_it_is_whole(tables: World, process: psutil.Process) -> None:
    before = process.memory_info().rss
    _store(_GROWS, 25, key=b"k" * 300)
    found = _pages(tables)
    assert len({message["id"] for message in found}) == 25
    for message in found:
        assert (message["payload"], message["headers"], message["key"]) == (None, None, "k" * 200)
        assert message["too_large"]["bytes"] == _NUMBERS * 311 + 300 + len('{"a": "b"}')
    shown = requests.get(f"{tables.url}/messages/{found[0]['id']}", timeout=60).json()
    assert shown == found[0]
    answer = requests.get(f"{tables.url}{shown['too_large']['url']}", timeout=60)
    assert answer.headers["Content-Type"] == "application/json"
    whole = orjson.loads(answer.content)
    assert whole["payload"] == [1e308] * _NUMBERS
    assert (whole["key"], whole["headers"]) == ("k" * 300, {"a": "b"})
    assert whole.keys() == shown.keys() - {"too_large"}
    assert peak_bytes(process) - before < _MOST


def test_pages_of_wide_text_need_little_memory(tables: World, process: psutil.Process) -> None:
    before = process.memory_info().rss
    _store(_WIDE, 30)
    found = _pages(tables)
    assert len({message["id"] for message in found if len(message["payload"]) == 1_900_001}) == 30
    assert peak_bytes(process) - before < _MOST


def test_exports_have_the_whole_message(tables: World, process: psutil.Process) -> None:
    before = process.memory_info().rss
    _store(_GROWS, 2)
    _store(b'{"small": 1}', 2, first=2)
    with requests.get(f"{tables.url}/messages/export", stream=True, timeout=60) as answer:
        lines = [orjson.loads(line) for line in answer.iter_lines(1 << 20)]
    assert [line["payload"] for line in lines] == [{"small": 1}] * 2 + [[1e308] * _NUMBERS] * 2
    table = requests.get(f"{tables.url}/messages/export", {"format": "csv"}, timeout=60).text
    cells = [row["payload"] for row in csv.DictReader(io.StringIO(table))]
    assert cells[:2] == ['{"small": 1}'] * 2
    assert cells[2:] == [f"/messages/{line['id']}/whole?topic=topic" for line in lines[2:]]
    assert peak_bytes(process) - before < _MOST


def test_listeners_get_the_path_of_a_message_that_is_too_large(tables: World, process: psutil.Process) -> None:
    before = process.memory_info().rss
    headers = {"Last-Event-ID": f"0-{uuid.UUID(int=0)}"}
    with requests.get(f"{tables.url}/messages/stream", headers=headers, stream=True, timeout=60) as answer:
        _store(_GROWS, 5)
        events: list[dict[str, object]] = []
        lines = answer.iter_lines(1)

        def _five() -> bool:
            line = next(lines)
            if line.startswith(b"data: "):
                events.append(orjson.loads(line[6:]))
            return len(events) == 5

        wait_until(_five, "five events are there")
    assert [event["payload"] for event in events] == [None] * 5
    assert all("too_large" in event for event in events)
    assert peak_bytes(process) - before < _MOST


def test_nothing_is_streamed_of_a_message_that_is_not_stored(tables: World, process: psutil.Process) -> None:
    answer = requests.get(f"{tables.url}/messages/{uuid.uuid4()}/whole", timeout=60)
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
