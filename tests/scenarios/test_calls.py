"""A call of a users' task, by code or over HTTP, is durable once it was accepted, waits for its time, and runs once."""

import uuid
from collections import Counter
from typing import Any

import orjson
import requests

from tests.waiting import wait_until
from tests.world import World

_CALLS = 200


def _call(shop: World, code: str) -> list[str]:
    """Run a program of the users, outside of every pod; returns the ids that it prints."""
    return shop.run_code(f"from tests.user_tasks import double\n{code}").split()


def _post(shop: World, task: str, payload: Any, **parameters: Any) -> requests.Response:
    return requests.post(f"{shop.url}/tasks/{task}", json=payload, params=parameters, timeout=30)


def _state(shop: World, call_id: str, wait: float = 10) -> Any:
    return requests.get(f"{shop.url}/runs/{call_id}", params={"wait": wait}, timeout=30).json()


def test_calls_of_a_program_run_once(shop: World) -> None:
    shop.consume()
    ids = _call(shop, f"for n in range({_CALLS}): print(double.delay(n=n))")
    repeated = _call(shop, f"for _ in range(3): print(double.apply_async({{'n': 1}}, task_id={ids[1]!r}))")
    assert repeated == [ids[1]] * 3
    wait_until(lambda: shop.effects("double").total() >= _CALLS, "all calls have run", 20)
    assert shop.effects("double") == Counter(dict.fromkeys(ids, 1))
    assert shop.sql("SELECT state, count(*) FROM run GROUP BY 1") == [("done", _CALLS)]
    assert shop.sql("SELECT count(*) FROM message") == [(0,)]


def test_a_call_is_durable_while_nothing_runs_it(shop: World) -> None:
    [killer, one] = _call(shop, "print(double.delay(n=0, kill=True), double.delay(n=4))")
    shop.serve()
    assert _state(shop, one, wait=0)["status"] == 404
    shop.consume()
    wait_until(lambda: _state(shop, one)["state"] == "done", "the call has run", 20)
    assert _state(shop, one)["result"] == {"double": 8}
    wait_until(lambda: _state(shop, killer)["state"] == "failed", "the killer has failed", 90)
    assert _state(shop, killer)["error"] == "it ended its process 3 times"


def test_a_call_over_http_is_run_and_its_result_is_waited_for(shop: World) -> None:
    shop.serve()
    shop.consume()
    answer = _post(shop, "double", {"n": 21})
    assert answer.status_code == 202
    found = requests.get(shop.url + answer.headers["Location"], params={"wait": 10}, timeout=30).json()
    assert (found["state"], found["result"], found["attempts"]) == ("done", {"double": 42}, 1)
    failing = _post(shop, "double", {"n": None}).json()["id"]
    assert _state(shop, failing)["state"] == "failed"
    assert _state(shop, failing)["error"].startswith("TypeError: ")
    later = _post(shop, "double", {"n": 1}, countdown=3600).json()["id"]
    expired = _post(shop, "double", {"n": 1}, countdown=1, expires=0.5).json()["id"]
    assert _state(shop, expired)["state"] == "expired"
    assert _state(shop, later, wait=0)["state"] == "waiting"
    task_id = str(uuid.uuid4())
    for _ in range(2):
        assert _post(shop, "double", {"n": 5}, task_id=task_id).json()["id"] == task_id
    assert _state(shop, task_id)["state"] == "done"
    assert shop.effects("double")[task_id] == 1
    unknown = _post(shop, "doubel", {})
    assert (unknown.status_code, unknown.json()["title"]) == (404, "No such task")
    bad = requests.post(f"{shop.url}/tasks/double", data=b"{", timeout=30)
    assert bad.status_code == 400


def test_a_call_inside_a_transaction_is_made_with_it(shop: World) -> None:
    shop.consume()
    shop.produce([orjson.dumps({"type": "passed-on", "n": n, "fail": n % 2 == 1}) for n in range(20)])
    shop.wait_for(20)
    wait_until(lambda: shop.effects("double").total() >= 10, "the calls have run", 20)
    wait_until(lambda: shop.obligations() == 0, "all obligations have ended", 10)
    assert sorted(result["double"] for result in _results(shop)) == [2 * n for n in range(0, 20, 2)]
    assert shop.sql("SELECT count(*) FROM run WHERE task = 'passing_on' AND state = 'failed'") == [(10,)]


def test_a_bad_call_is_a_dead_letter_and_its_neighbours_run(shop: World) -> None:
    shop.consume()
    topic, headers = shop.variables["KAFKA_CALLS_TOPIC"], [("task", b"double")]
    shop.produce([b'{"n": 1}', b"{", b'{"n": 2}'], topic=topic, headers=headers)
    shop.produce([b'{"n": 3}'], topic=topic)
    wait_until(lambda: shop.effects("double").total() == 2, "the calls have run", 20)
    wait_until(lambda: len(shop.sql("SELECT id FROM dead_letter")) == 2, "the others are dead letters", 10)
    reasons = {row[0] for row in shop.sql("SELECT reason FROM dead_letter")}
    assert reasons == {"not_json", "bad_header"}


def _results(shop: World) -> list[Any]:
    return [orjson.loads(row[0]) for row in shop.sql("SELECT result FROM run WHERE task = 'double'")]
