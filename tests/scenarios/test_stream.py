"""GET /messages/stream: a listener that reconnects gets every message exactly once, in spite of many writers."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import orjson
import psycopg2
import pytest
import requests

from tests.clients import events
from tests.waiting import BUSY, wait_until
from tests.world import World

_COUNT = 6_000
_INSERT = (
    'INSERT INTO message (id, topic, "partition", "offset", produced_at) VALUES (gen_random_uuid(), \'t\', 0, 0, now())'
)
_LARGE = (
    'INSERT INTO message (id, topic, "partition", "offset", produced_at, payload)'
    " SELECT gen_random_uuid(), 't', 0, n, now(), to_jsonb(repeat(md5(n::text), 28125)) FROM generate_series(1, %s) n"
)


class Listener(threading.Thread):
    """Listens until its test ends; with `chance`, it breaks its connection now and then and reconnects."""

    all: ClassVar[list["Listener"]] = []

    def __init__(self, world: World, chance: random.Random | None = None, **parameters: str) -> None:
        super().__init__(daemon=True)
        self.all.append(self)
        self._url = f"{world.url}/messages/stream"
        self._parameters = parameters
        self._chance = chance
        self._last: str | None = None
        self.ids: list[str] = []
        self.connections = 0
        self.stopping = False
        self.listening = threading.Event()
        self._session = requests.Session()
        self._session.trust_env = False  # which pytest changes at the end of a test, when this may still run

    def run(self) -> None:
        while not self.stopping:
            with suppress(requests.RequestException):
                self._listen()

    def _listen(self) -> None:
        headers = {} if self._last is None else {"Last-Event-ID": self._last}
        with self._session.get(self._url, params=self._parameters, headers=headers, stream=True, timeout=20) as answer:
            assert answer.status_code == 200, answer.text
            self.connections += 1
            left = self._chance.randrange(1, 400) if self._chance else None
            for event in _events(answer):
                self._last = event.get("id", self._last)
                self.listening.set()
                if "data" in event:
                    self.ids.append(_own_id(orjson.loads(event["data"])))
                    left = None if left is None else left - 1
                if self.stopping or left == 0:
                    return


def _own_id(message: dict[str, Any]) -> str:
    """What distinguishes messages, as in `World.ids`."""
    payload = message["payload"]
    own: str = payload["id"] if isinstance(payload, dict) and "id" in payload else message["id"]
    return own


def _events(answer: requests.Response) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in answer.iter_lines(chunk_size=1 << 20):  # what has come, at most so much
        if line:
            name, _, value = line.decode().partition(": ")
            event[name] = value
        else:
            yield event
            event = {}


def _has(listener: Listener, count: int) -> bool:
    return len(listener.ids) >= count


@pytest.fixture(autouse=True)
def _end_of_listeners() -> Iterator[None]:
    """Without it, they would try to connect in a loop, and slow all later tests down."""
    yield
    for listener in Listener.all:
        listener.stopping = True
    Listener.all.clear()


@pytest.fixture
def serving(ready: World) -> World:
    ready.serve(web_processes="2")
    return ready


def test_who_comes_back_under_load_has_every_message_once(serving: World) -> None:
    made = events(_COUNT)
    seed = time.time_ns()
    print(f"seed {seed}")
    listeners = [Listener(serving, random.Random(seed + number)) for number in range(3)] + [Listener(serving)]
    for listener in listeners:
        listener.start()
    for listener in listeners:
        assert listener.listening.wait(30)
    serving.consume(workers="4", batch_records="20", in_flight="16", linger_ms="5")
    serving.produce(list(made.values()))
    for listener in listeners:
        wait_until(partial(_has, listener, _COUNT), "the listener has them all", 90)
        listener.stopping = True
        assert sorted(listener.ids) == sorted(made)
    assert min(listener.connections for listener in listeners[:3]) > 5


def test_a_listener_gets_what_it_asked_for_from_where_it_says(serving: World) -> None:
    whole, some = Listener(serving), Listener(serving, type="type-3")
    for listener in (whole, some):
        listener.start()
        assert listener.listening.wait(30)
    made = events(100)
    serving.consume()
    serving.produce(list(made.values()))
    wait_until(lambda: len(whole.ids) == 100 and len(some.ids) == 20, "both have theirs")
    first = Listener(serving, after="0-00000000-0000-0000-0000-000000000000")
    first.start()
    wait_until(lambda: first.ids == whole.ids, "everything from the beginning, in the same order")
    bad = requests.get(f"{serving.url}/messages/stream", headers={"Last-Event-ID": "7"}, timeout=5)
    assert (bad.status_code, bad.json()["type"]) == (400, "/problems/bad-parameter")


def test_a_client_that_leaves_makes_room_for_another(ready: World) -> None:
    ready.serve(web_processes="1", stream_listeners="1")
    url = f"{ready.url}/messages/stream"
    with requests.get(url, stream=True, timeout=5) as first:
        assert first.status_code == 200
        assert requests.get(url, timeout=5).status_code == 503
    wait_until(partial(_listens, url), "the place of who left is free", 5)


def test_a_transaction_that_stays_open_delays_messages_and_loses_none(serving: World) -> None:
    listener = Listener(serving)
    listener.start()
    assert listener.listening.wait(30)
    first = psycopg2.connect(serving.variables["DATABASE_URL"])
    first.cursor().execute(_INSERT)
    serving.sql(_INSERT)
    other = Listener(serving)  # begins where the first did, as nothing was shown since
    other.start()
    assert other.listening.wait(30)
    assert not listener.ids
    first.commit()
    first.close()
    for one in (listener, other):
        wait_until(partial(_has, one, 2), "both messages are there")
        assert sorted(one.ids) == sorted(serving.ids())


def test_a_restored_database_is_not_taken_for_the_one_it_was(serving: World) -> None:
    url = f"{serving.url}/messages/stream"
    serving.sql(_INSERT)
    place = serving.sql("SELECT (xact::text::bigint + 1000000)::text, id::text FROM message")[0]
    gone = requests.get(url, headers={"Last-Event-ID": "-".join(place)}, timeout=5)
    assert (gone.status_code, gone.json()["type"]) == (410, "/problems/other-database")
    serving.sql("UPDATE message SET xact = %s::xid8", place[0])  # as if dumped from a server that wrote more
    told = requests.get(url, timeout=5)
    assert (told.status_code, "run init" in told.json()["detail"]) == (503, True)
    assert serving.run("init", "--check").returncode == 5
    serving.init()
    listener = Listener(serving)
    listener.start()
    assert listener.listening.wait(30)
    serving.sql(_INSERT)
    wait_until(partial(_has, listener, 1), "what is new is there")
    assert place[1] not in listener.ids


def test_large_messages_need_little_memory(ready: World) -> None:
    process = ready.serve(web_processes="1").family()[-1]
    listeners = [Listener(ready) for _ in range(2)]
    for listener in listeners:
        listener.start()
        assert listener.listening.wait(30)
    before = process.memory_info().rss
    for _ in range(10):
        ready.sql(_LARGE, 30)
    late = Listener(ready, after="0-00000000-0000-0000-0000-000000000000")
    late.start()
    for listener in (*listeners, late):
        wait_until(partial(_has, listener, 300), "300 messages of 900 kB are there", 90)
    grown = process.memory_info().rss - before
    print(f"300 messages of 900 kB: {grown >> 20} MiB more")
    assert grown < 200 << 20


def test_listeners_outlive_an_outage_of_postgresql(serving: World) -> None:
    listener = Listener(serving)
    listener.start()
    assert listener.listening.wait(30)
    serving.sql(_INSERT)
    wait_until(partial(_has, listener, 1), "the first is there")
    serving.admin("ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    serving.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
    server = serving.programs[0]
    wait_until(lambda: server.lines("service.unavailable"), "the server noticed")
    process = max(server.family(), key=lambda one: one.num_threads())
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    wait_until(lambda: time.monotonic() - began > 2, "two seconds without PostgreSQL")
    assert sum(process.cpu_times()[:2]) - before < 1
    serving.admin("ALTER DATABASE {database} ALLOW_CONNECTIONS true")
    serving.sql(_INSERT)
    wait_until(partial(_has, listener, 2), "the second is there")
    assert listener.connections == 1


def _listens(url: str) -> bool:
    with requests.get(url, stream=True, timeout=5) as answer:
        return answer.status_code == 200


def test_many_listeners_cost_little_and_do_not_keep_the_server_from_stopping(ready: World) -> None:
    server = ready.serve(web_processes="1", stream_listeners="100")
    listeners = [Listener(ready) for _ in range(100)]
    for listener in listeners:
        listener.start()
    for listener in listeners:
        assert listener.listening.wait(30)
    one_more = requests.get(f"{ready.url}/messages/stream", timeout=5)
    assert (one_more.status_code, one_more.json()["type"]) == (503, "/problems/too-many-listeners")
    process = server.family()[-1]
    print(f"100 listeners: {process.memory_info().rss >> 20} MiB")
    made = events(500)
    ready.consume()
    ready.produce(list(made.values()))
    wait_until(lambda: all(len(listener.ids) == 500 for listener in listeners), "all have them", 60)
    assert all(set(listener.ids) == set(made) for listener in listeners)
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    wait_until(lambda: time.monotonic() - began > 3, "three quiet seconds")
    print(f"100 quiet listeners: {(sum(process.cpu_times()[:2]) - before) / 3:.1%} of a core")
    for listener in listeners:
        listener.stopping = True
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10 * BUSY
