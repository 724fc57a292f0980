"""An Idempotency-Key stands for one request: over two servers, a restart, and an outage of PostgreSQL."""

from typing import Any

import pytest
import requests

from tasks.store import idempotency
from tests.waiting import wait_until
from tests.world import World


def _post(world: World, key: str, body: Any, path: str = "/messages") -> requests.Response:
    return requests.post(f"{world.url}{path}", json=body, headers={"Idempotency-Key": key}, timeout=30)


def test_a_repeated_request_is_stored_once_by_any_server_after_any_restart(ready: World) -> None:
    server = ready.serve(web_processes="2")
    first = _post(ready, "key-1", {"n": 1})
    again = [_post(ready, "key-1", {"n": 1}) for _ in range(10)]
    assert server.stop() == 0
    ready.serve()
    again.append(_post(ready, "key-1", {"n": 1}))
    other = _post(ready, "key-2", {"n": 1})
    batches = [_post(ready, "key-3", [{"n": 1}, {"n": 2}], "/messages/batch") for _ in range(3)]
    assert {answer.status_code for answer in [first, *again, other, *batches]} == {202}
    assert {answer.json()["id"] for answer in again} == {first.json()["id"]}
    ids = {first.json()["id"], other.json()["id"]} | {item["id"] for b in batches for item in b.json()["items"]}
    assert len(ids) == 4
    ready.consume()
    ready.wait_for(4)
    wait_until(lambda: ready.ids() == ids, "each is stored once")


def test_a_key_with_another_body_is_refused(ready: World) -> None:
    ready.serve(web_processes="2")
    assert _post(ready, "key", {"n": 1}).status_code == 202
    answers = [_post(ready, "key", {"n": 2}) for _ in range(6)]
    assert {(answer.status_code, answer.json()["type"]) for answer in answers} == {(422, "/problems/key-reused")}
    assert _post(ready, "key", [{"n": 1}], "/messages/batch").status_code == 422


def test_without_postgresql_a_key_is_taken_and_a_conflict_is_found_later(ready: World) -> None:
    ready.serve(web_processes="1")
    server = ready.stack.servers["postgresql"]
    server.kill()
    try:
        answers = [_post(ready, "key", {"n": n, "key": "one partition"}) for n in (1, 1, 2)]
    finally:
        server.restart()
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer.json()["id"] for answer in answers}) == 1
    ready.consume()
    ready.wait_for(2)
    assert ready.sql("SELECT reason FROM dead_letter") == [("id_conflict",)]


def test_old_keys_are_forgotten(tables: World) -> None:
    assert tables.serve()
    assert _post(tables, "old", {"n": 1}).status_code == 202
    tables.sql("UPDATE idempotency_key SET used_at = now() - interval '8 days'")
    assert _post(tables, "new", {"n": 1}).status_code == 202
    assert sum(idempotency.forget()) == 1
    assert tables.sql("SELECT count(*) FROM idempotency_key") == [(1,)]


@pytest.mark.parametrize("key", ["x" * 256, ""])
def test_a_key_has_a_length(ready: World, key: str) -> None:
    ready.serve(web_processes="1")
    assert _post(ready, key, {"n": 1}).json()["type"] == "/problems/bad-parameter"
