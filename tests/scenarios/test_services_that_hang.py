"""A service that hangs blocks no request that does not need it: messages are accepted, probes get responses."""

import contextlib
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psutil
import psycopg2
import requests

from api import postgresql
from tests.programs import signalled
from tests.waiting import BUSY, wait_until
from tests.world import World

_READS_SECONDS = 16  # 2 for a connection, 3 for a response, 10 for a query, 1 until the connection is closed
_KEPT = {"/problems/query-too-slow", "/problems/unavailable", "/problems/overloaded"}
Answer = tuple[int, dict[str, Any], float]


def _ask(world: World, path: str, timeout: float = 60) -> Answer:
    answer = requests.get(f"{world.url}{path}", timeout=timeout)
    return answer.status_code, answer.json(), answer.elapsed.total_seconds()


def _post(world: World, key: str | None = None) -> Answer:
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = requests.post(f"{world.url}/messages", json={"n": 1}, headers=headers, timeout=60)
    return answer.status_code, answer.json(), answer.elapsed.total_seconds()


@contextlib.contextmanager
def _locked(world: World) -> Iterator[None]:
    connection = psycopg2.connect(world.variables["DATABASE_URL"])
    try:
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE message, message_count IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        connection.close()


@contextlib.contextmanager
def _frozen(world: World, name: str) -> Iterator[None]:
    server = psutil.Process(world.stack.servers[name].pid)
    family = [server, *server.children(recursive=True)]
    try:
        for process in family:
            signalled(process, signal.SIGSTOP)
        yield
    finally:
        for process in family:
            signalled(process, signal.SIGCONT)


def _probes_answer(world: World, wrong: str) -> None:
    for _ in range(5):
        assert _ask(world, "/health")[2] < BUSY
        status, body, seconds = _ask(world, "/health/ready")
        assert seconds < 2 * BUSY
        assert status == (503 if wrong == "kafka" else 200)
        service = body["services"][wrong]
        assert not service["ok"] and "not respond" in service["reason"], body
        assert all(other["ok"] for name, other in body["services"].items() if name != wrong), body


def _recovers(world: World) -> None:
    def is_well() -> bool:
        read = all(_ask(world, path)[0] == 200 for path in ("/messages", "/dead-letters"))
        read = read and _ask(world, "/health/ready")[1]["status"] == "ok"
        return read and not any(_ask(world, path)[1]["problems"] for path in ("/stats", "/topics"))

    # Several times, because each process finds out for itself.
    wait_until(lambda: all(is_well() for _ in range(5)), "all is answered again", 20)


def _readers_wait(world: World, pool: ThreadPoolExecutor) -> "list[Future[Answer]]":
    # An id as one made from a place, for which the table is read: any other is known by its claim alone.
    paths = ["/messages", "/messages/00000000-0000-8000-8000-000000000000", "/messages/export", "/stats"]
    return [pool.submit(_ask, world, paths[number % len(paths)]) for number in range(80)]


def _all_are_accepted(world: World) -> None:
    # Not more at once than a process has slots: all may reach the same process.
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda n: _post(world, f"key-{n}" if n % 4 == 0 else None), range(300)))
    print(f"slowest of {len(answers)} messages: {max(seconds for _, _, seconds in answers):.1f} s")
    assert {status for status, _, _ in answers} == {202}


def _are_told(readers: "list[Future[Answer]]") -> None:
    answers = [reader.result() for reader in readers]
    slowest = max(seconds for _, _, seconds in answers)
    told = [body.get("type", "") for status, body, _ in answers if status != 200]
    assert set(told) <= _KEPT, set(told)
    print({kind: told.count(kind) for kind in set(told)}, f"slowest {slowest:.1f} s")
    assert len(told) >= 40


def test_readers_of_a_locked_table_keep_nobody_else_from_being_served(ready: World) -> None:
    ready.serve()
    assert _ask(ready, "/messages")[0] == 200
    with _locked(ready), ThreadPoolExecutor(200) as pool:
        readers = _readers_wait(ready, pool)
        wait_until(lambda: _waiting_for_the_lock(ready) >= postgresql.READING.count, "readers wait")
        _all_are_accepted(ready)
        _probes_answer(ready, "postgresql")
        assert _ask(ready, "/dead-letters")[0] == 200
        status, body, seconds = _ask(ready, "/topics")
        assert (status, seconds < 6 * BUSY) == (200, True), body
        connections = ready.sql(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'backend-serve' AND datname = current_database()"
        )
        assert connections[0][0] <= 2 * postgresql.CONNECTIONS < 64
        _are_told(readers)
        status, body, seconds = _ask(ready, "/messages")
        assert (status, body["type"]) == (503, "/problems/query-too-slow")
        assert "longer than 10 s" in body["detail"]
        assert seconds < _READS_SECONDS * BUSY
        status, body, seconds = _ask(ready, "/stats")
        assert (status, body["buckets"]) == (200, None) and seconds < 12 * BUSY
        assert any("longer than 5 s" in problem for problem in body["problems"])
    _recovers(ready)


def _waiting_for_the_lock(world: World) -> int:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return int(world.sql(waiting)[0][0])


def test_a_frozen_postgresql_holds_up_no_writer_and_no_probe(ready: World) -> None:
    ready.serve()
    with ThreadPoolExecutor(100) as warm:  # connections that were good before
        list(warm.map(lambda _: _ask(ready, "/messages"), range(40)))
        list(warm.map(lambda n: _post(ready, f"warm-{n}"), range(20)))
    with ThreadPoolExecutor(200) as pool, _frozen(ready, "postgresql"):
        readers = _readers_wait(ready, pool)
        _all_are_accepted(ready)
        _probes_answer(ready, "postgresql")
        for number in range(5):
            status, _, seconds = _post(ready, f"alone-{number}")
            assert status == 202 and seconds < 2 * BUSY
        _are_told(readers)
        for path in ("/messages", "/dead-letters", "/messages/export", "/messages/stream"):
            status, body, seconds = _ask(ready, path)
            assert (status, body["type"]) == (503, "/problems/unavailable")
            assert "did not respond" in body["detail"]
            assert seconds < 6 * BUSY
        redriving = requests.post(f"{ready.url}/dead-letters/redrive", json={}, timeout=30)
        assert redriving.status_code == 503 and redriving.elapsed.total_seconds() < 6 * BUSY
        for path in ("/stats", "/topics"):
            status, body, seconds = _ask(ready, path)
            assert status == 200 and seconds < 10 * BUSY and body["problems"]
    _recovers(ready)


def test_a_frozen_kafka_holds_up_no_reader_and_no_probe(ready: World) -> None:
    ready.serve(web_processes="1")  # whose producer is connected by the first message
    assert _post(ready)[0] == 202
    with ThreadPoolExecutor(40) as pool, _frozen(ready, "kafka"):
        writers = [pool.submit(_post, ready) for _ in range(30)]
        _probes_answer(ready, "kafka")
        for path in ("/messages", "/dead-letters"):
            status, _, seconds = _ask(ready, path)
            assert status == 200 and seconds < BUSY
        for path in ("/stats", "/topics"):
            status, body, seconds = _ask(ready, path)
            assert status == 200 and seconds < 8 * BUSY and "Kafka" in body["problems"][0]
        assert {writer.result()[0] for writer in writers} == {503}
    wait_until(lambda: _post(ready)[0] == 202, "messages are accepted again", 60)
    wait_until(lambda: _ask(ready, "/health/ready")[0] == 200, "Kafka answers again", 60)
    wait_until(lambda: not _ask(ready, "/topics")[1]["problems"], "Kafka tells its lag again", 60)
