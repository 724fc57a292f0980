"""Operators over HTTP: counts, lag, and dead letters."""

import base64
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import psycopg2
import requests

from tests.clients import events
from tests.programs import signalled
from tests.waiting import BUSY, wait_until
from tests.world import World


def _get(world: World, path: str, **parameters: Any) -> Any:
    answer = requests.get(f"{world.url}{path}", parameters, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _post(world: World, path: str, body: Any = None) -> tuple[int, Any]:
    answer = requests.post(f"{world.url}{path}", json=body, timeout=30)
    return answer.status_code, answer.json()


def _stop(world: World, partition: int) -> None:
    world.sql(
        'INSERT INTO stopped_partition (topic, "partition", "group", reason, limit_percent, stopped_at)'
        " VALUES (%s, %s, %s, 'a flood', 100, now())",
        *(world.topic, partition, world.topic),
    )


def test_lag_is_told_in_records_and_time_and_goes_to_nothing(ready: World) -> None:
    ready.serve(web_processes="1")
    ready.produce(list(events(100).values()))
    wait_until(lambda: _get(ready, "/stats")["lag_records"] == 100, "all are behind")
    behind = _get(ready, "/stats")
    assert 0 <= behind["oldest_unstored_seconds"] < 60
    assert behind["problems"] == []
    ready.consume()
    wait_until(lambda: _get(ready, "/stats")["lag_records"] == 0, "nothing is behind")
    after = _get(ready, "/stats")
    assert (after["oldest_unstored_seconds"], sum(one["messages"] for one in after["buckets"])) == (None, 100)
    assert after["types"] == [{"type": f"type-{n}", "messages": 20} for n in range(5)]
    assert after["per_second"]["1_minute"] == round(100 / 60, 3)
    assert sum(one["messages"] for one in _get(ready, "/stats", type="type-1", bucket="day")["buckets"]) == 20
    topics = _get(ready, "/topics")["topics"]
    assert [topic["topic"] for topic in topics] == [ready.topic]
    partitions = topics[0]["partitions"]
    assert sum(one["committed"] or 0 for one in partitions) == 100
    assert {(one["lag_records"], one["lag_seconds"], one["quarantined"]) for one in partitions} == {(0, None, False)}


def test_what_is_away_is_named_and_the_rest_is_told(ready: World) -> None:
    ready.serve(web_processes="1", kafka_brokers="127.0.0.1:1")
    told = _get(ready, "/stats")
    assert (told["lag"], told["types"]) == (None, [])
    assert "KAFKA_BROKERS" in told["problems"][0]
    _stop(ready, 2)
    told = _get(ready, "/topics")
    assert told["topics"] == [{"topic": ready.topic, "partitions": None, "quarantined": [2]}]
    assert "KAFKA_BROKERS" in told["problems"][0]


def test_what_hangs_holds_up_nobody(ready: World) -> None:
    ready.serve(web_processes="1")
    _get(ready, "/topics")  # so its clients are connected
    kafka = psutil.Process(ready.stack.servers["kafka"].pid)
    signalled(kafka, signal.SIGSTOP)
    try:
        wait_until(lambda: _get(ready, "/stats")["lag"] is None, "what was known is old")
        with ThreadPoolExecutor(8) as askers:
            began = time.monotonic()
            told = list(askers.map(lambda _: _get(ready, "/stats"), range(8)))
            took = time.monotonic() - began
    finally:
        signalled(kafka, signal.SIGCONT)
    assert [(one["lag"], one["types"]) for one in told] == [(None, [])] * 8
    assert took < 10 * BUSY  # 5 are promised
    wait_until(lambda: _get(ready, "/stats")["lag"] is not None, "Kafka tells again")


def test_what_takes_too_long_to_count_is_not_counted(ready: World) -> None:
    ready.serve(web_processes="1")
    with psycopg2.connect(ready.variables["DATABASE_URL"]) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE message_count IN ACCESS EXCLUSIVE MODE")
        told = _get(ready, "/stats")
        other.rollback()
    assert (told["types"], told["lag_records"]) == (None, 0)
    assert "statement timeout" in told["problems"][0]
    assert _get(ready, "/stats")["problems"] == []


def test_too_many_buckets_are_refused(ready: World) -> None:
    ready.serve(web_processes="1")
    answer = requests.get(f"{ready.url}/stats?from=2020-01-01T00:00:00Z", timeout=30)
    assert (answer.status_code, answer.json()["parameter"]) == (400, "bucket")


def test_dead_letters_are_seen_redriven_and_discarded(ready: World) -> None:
    ready.serve(web_processes="1")
    ready.produce([b"\xff", b"{not json", b"[1"], key=b"k", headers=[("h", b"\x00")])
    ready.consume()
    ready.wait_for(3)
    page = _get(ready, "/dead-letters", limit=2)
    rest = _get(ready, "/dead-letters", cursor=page["next"])
    letters = page["dead_letters"] + rest["dead_letters"]
    assert {letter["reason"] for letter in letters} == {"not_json", "invalid_utf8"}
    assert len({letter["id"] for letter in letters}) == 3
    assert _get(ready, "/dead-letters", reason="invalid_utf8", topic=ready.topic)["dead_letters"][0]["offset"] >= 0

    binary, first, second = sorted(letters, key=lambda letter: letter["reason"])
    shown = _get(ready, f"/dead-letters/{binary['id']}")
    assert (shown["value_base64"], shown["value_text"]) == (base64.b64encode(b"\xff").decode(), None)
    assert (shown["key_text"], shown["headers"]) == ("k", [["h", "AA==", "\x00"]])

    assert _post(ready, f"/dead-letters/{first['id']}/redrive") == (200, {"redriven": 1})
    assert _post(ready, f"/dead-letters/{first['id']}/redrive")[1]["type"] == "/problems/already-handled"
    assert _post(ready, f"/dead-letters/{binary['id']}/discard", {"note": "garbage"}) == (200, {"discarded": 1})
    assert _post(ready, f"/dead-letters/{binary['id']}/discard", {"note": "garbage"})[0] == 409
    assert _post(ready, f"/dead-letters/{second['id']}/discard", {})[0] == 400
    wait_until(lambda: ready.count() == 4, "the redriven one died again")
    assert _post(ready, "/dead-letters/redrive", {"topic": ready.topic, "limit": 1}) == (
        200,
        {"redriven": 1, "failed": {}},
    )
    assert _get(ready, "/dead-letters", state="redriven", limit=10)["next"] is None
    assert _post(ready, "/dead-letters/00000000-0000-4000-8000-000000000000/redrive")[0] == 404


def test_stopped_partitions_are_resumed(ready: World) -> None:
    ready.serve(web_processes="1")
    _stop(ready, 1)
    partitions = _get(ready, "/topics")["topics"][0]["partitions"]
    assert [one["quarantined"] for one in partitions] == [False, True, False]
    assert _post(ready, f"/topics/{ready.topic}/release") == (200, {"released": 1})
    assert _post(ready, f"/topics/{ready.topic}/release") == (200, {"released": 0})
