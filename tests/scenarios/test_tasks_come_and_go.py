"""A task begins at one exact transaction, pods of two versions run side by side, and operators see what failed."""

from collections import Counter

import orjson
import pytest
import requests

from bootstrap.commands import init
from tasks.store.connection import database
from tests.clients import events
from tests.user_tasks import EFFECT
from tests.waiting import wait_until
from tests.world import World

_COUNT = 20_000


def _register(world: World, modules: str) -> None:
    init.run(world.settings(tasks=modules), {}, check=False)
    database.close_all()


def test_a_task_begins_at_one_exact_transaction(ready: World) -> None:
    ready.sql(EFFECT)
    made = events(_COUNT)
    pod = ready.consume(batch_records="100")
    for number, _ in enumerate(ready.under_load(made, 10)):
        if number == 4:
            _register(ready, "tests.user_tasks")
        if number == 7:
            ready.start("consume", "--only", "tasks", tasks="tests.user_tasks")
    ready.wait_for(_COUNT)
    wait_until(lambda: ready.obligations() == 0, "all obligations have ended", 60)
    wanted = "SELECT id::text FROM message WHERE xact > (SELECT xact FROM task WHERE name = 'exact')"
    after = Counter(message for (message,) in ready.sql(wanted))
    ran = ready.effects("exact")
    assert ran == after
    assert 0 < after.total() < _COUNT
    assert pod.stop() == 0


def test_a_task_whose_code_is_missing_waits_and_the_others_go_on(ready: World) -> None:
    ready.sql(EFFECT)
    _register(ready, "tests.user_tasks")
    ready.sql("INSERT INTO task (name, patterns) VALUES ('removed', '{%}')")
    ready.consume(tasks="tests.user_tasks")
    ready.produce(list(events(100).values()))
    ready.wait_for(100)
    of_others = "SELECT count(*) FROM chunk JOIN task ON task.id = task WHERE name <> 'removed'"
    wait_until(lambda: ready.sql(of_others) == [(0,)], "the others have run")
    assert ready.sql("SELECT sum(messages) FROM chunk") == [(100,)]


def test_a_changed_pattern_is_registered_and_what_was_obliged_before_still_runs(ready: World) -> None:
    ready.sql(EFFECT)
    ready.sql("INSERT INTO task (name, patterns) VALUES ('exact', '{order.%}')")
    pod = ready.consume()
    ready.produce([orjson.dumps({"type": "order.paid"})])
    ready.wait_for(1)
    _register(ready, "tests.user_tasks")
    assert ready.sql("SELECT patterns FROM task WHERE name = 'exact' AND retired_at IS NULL") == [(["type-%"],)]
    ready.start("consume", "--only", "tasks", tasks="tests.user_tasks")
    ready.produce([orjson.dumps({"type": "order.paid", "wish": ""}), orjson.dumps({"type": "type-1"})])
    ready.wait_for(3)
    wait_until(lambda: ready.obligations() == 0, "all obligations have ended")
    types = "SELECT type FROM effect JOIN message ON id::text = message WHERE task = 'exact' ORDER BY stored_at"
    assert ready.sql(types) == [("order.paid",), ("type-1",)]
    assert pod.stop() == 0


def test_a_renamed_task_takes_over_what_the_old_name_was_obliged_to(ready: World) -> None:
    ready.sql(EFFECT)
    ready.sql("INSERT INTO task (name, patterns) VALUES ('exact', '{type-%}')")
    old = ready.consume()
    made = events(2_000)
    for number, _ in enumerate(ready.under_load(made, 4)):
        if number == 1:
            _register(ready, "tests.renamed_tasks")
            ready.run_code("from tests.user_tasks import exact; exact.delay(n=1)")
        if number == 2:
            ready.start("consume", "--only", "tasks", tasks="tests.renamed_tasks")
            ready.start("consume", "--only", "bridge", tasks="tests.renamed_tasks")
    ready.wait_for(2_000)
    done = "SELECT count(*) FROM run WHERE state = 'done'"
    wait_until(lambda: ready.sql(done) == [(1,)], "the call has run", 30)  # the bridges share their topics meanwhile
    wait_until(lambda: ready.obligations() == 0, "all obligations have ended", 30)
    stored = Counter(str(row[0]) for row in ready.sql("SELECT id FROM message"))
    called = Counter(str(row[0]) for row in ready.sql("SELECT message_id FROM run WHERE state = 'done'"))
    assert ready.effects("exactly") == stored + called
    counted = dict(ready.sql("SELECT name, retired_at IS NULL FROM task"))
    assert counted == {"exact": False, "exactly": True}
    ready.run("runs", "replay", "--task", "exactly", "--from", "2020-01-01T00:00Z", "--to", "2100-01-01T00:00Z")
    assert ready.obligations() == 0
    assert old.stop() == 0


def test_failed_runs_are_listed_shown_retried_and_discarded(ready: World) -> None:
    ready.sql(EFFECT)
    _register(ready, "tests.user_tasks")
    ready.consume(tasks="tests.user_tasks")
    ready.produce([orjson.dumps({"type": "order.paid", "wish": "fail"}) for _ in range(3)])
    ready.wait_for(3)
    wait_until(lambda: ready.sql("SELECT count(*) FROM run WHERE state = 'failed'") == [(3,)], "they failed")
    listed = ready.run("runs", "list", "--task", "flaky", "--json")
    rows = [orjson.loads(line) for line in listed.stdout.splitlines()]
    assert {(row["state"], row["attempts"], row["error"]) for row in rows} == {
        ("failed", 3, "ValueError: as its message says")
    }
    shown = ready.run("runs", "show", str(rows[0]["id"])).stdout
    assert 'raise ValueError("as its message says")' in shown
    assert (
        "would discard 1" in ready.run("runs", "discard", "--id", str(rows[0]["id"]), "--note", "n", "--dry-run").stdout
    )
    assert "discarded 1" in ready.run("runs", "discard", "--id", str(rows[0]["id"]), "--note", "n").stdout
    assert ready.run("runs", "retry").returncode == 2
    assert "2 are run once more" in ready.run("runs", "retry", "--all").stdout
    wait_until(
        lambda: ready.sql("SELECT array_agg(attempts ORDER BY id) FROM run WHERE state = 'failed'") == [([4, 4],)],
        "again",
    )


@pytest.mark.parametrize(
    ("modules", "sentence"),
    [
        ("no_such_module", "TASKS: module no_such_module cannot be imported"),
        ("tests.records", "no function with @task"),
    ],
)
@pytest.mark.parametrize("command", ["init", "consume"])
def test_a_bad_module_is_a_sentence_and_never_a_pod(ready: World, command: str, modules: str, sentence: str) -> None:
    done = ready.run(command, tasks=modules)
    assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr


def test_a_task_that_fails_too_much_is_paused_and_the_others_go_on(ready: World) -> None:
    ready.sql(EFFECT)
    _register(ready, "tests.user_tasks")
    pod = ready.consume(tasks="tests.user_tasks")
    ready.produce([orjson.dumps({"type": "order.paid", "wish": "fail"}) for _ in range(300)])
    ready.wait_for(300)
    wait_until(lambda: pod.lines("task.paused"), "it is paused")
    more = events(100)
    ready.produce([*more.values(), orjson.dumps({"type": "order.paid", "wish": "nothing"})])
    ready.wait_for(401)
    wait_until(lambda: ready.sql("SELECT count(*) FROM effect WHERE task = 'exact'") == [(100,)], "others have run")
    listed = [orjson.loads(line) for line in ready.run("tasks", "list", "--json").stdout.splitlines()]
    [flaky] = [task for task in listed if task["name"] == "flaky"]
    assert "100% of its recent runs failed" in flaky["paused"]
    assert flaky["waiting"] + flaky["retrying"] + flaky["failed"] == 301
    assert "flaky runs again" in ready.run("tasks", "resume", "flaky").stdout

    def good_one_ran() -> bool:
        ready.run("tasks", "resume", "flaky")  # on a slow machine failed ones are run first, and it is paused once more
        return ready.sql("SELECT count(*) FROM effect WHERE task = 'flaky'") == [(1,)]

    wait_until(good_one_ran, "the good one has run", 60)


def test_a_retired_task_ends_what_it_was_obliged_to_and_no_more(ready: World) -> None:
    ready.sql(EFFECT)
    _register(ready, "tests.user_tasks")
    pod = ready.consume()
    ready.produce(list(events(10).values()))
    ready.wait_for(10)
    assert "exact is retired" in ready.run("tasks", "retire", "exact").stdout
    ready.produce(list(events(10).values()))
    ready.wait_for(20)
    ready.start("consume", "--only", "tasks", tasks="tests.user_tasks")
    wait_until(lambda: ready.obligations() == 0, "all obligations have ended")
    assert ready.sql("SELECT task, count(*) FROM effect GROUP BY 1 ORDER BY 1") == [
        ("at_least_once", 20),
        ("exact", 10),
        ("in_batches", 20),
    ]
    assert ready.run("tasks", "retire", "no_such_task").returncode == 2
    assert pod.stop() == 0


def test_tasks_and_their_failed_runs_over_http(ready: World) -> None:
    _register(ready, "tests.user_tasks")
    ready.serve()
    ready.sql(
        'INSERT INTO run (task, message_id, topic, "partition", "offset", stored_at, state, attempts, error, traceback)'
        " SELECT 'flaky', gen_random_uuid(), 't', 0, n, now(), 'failed', 4, 'ValueError', 'Traceback' FROM"
        " generate_series(1, 5) n"
    )
    tasks = requests.get(f"{ready.url}/tasks").json()["tasks"]
    assert {task["name"]: task["failed"] for task in tasks}["flaky"] == 5
    first = requests.get(f"{ready.url}/runs", params={"task": "flaky", "limit": "3"}).json()
    rest = requests.get(f"{ready.url}/runs", params={"limit": "3", "before": str(first["next"])}).json()
    assert [run["offset"] for run in first["runs"] + rest["runs"]] == [5, 4, 3, 2, 1]
    assert rest["next"] is None
    one = f"{ready.url}/runs/{first['runs'][0]['id']}"
    assert requests.get(one).json()["traceback"] == "Traceback"
    assert requests.post(f"{one}/discard", json={"note": "a test"}).json() == {"discarded": 1}
    assert requests.post(f"{one}/retry").status_code == 409
    other = f"{ready.url}/runs/{first['runs'][1]['id']}"
    assert requests.post(f"{other}/retry").json() == {"retried": 1}
    assert requests.get(other).json()["state"] == "retrying"
    assert requests.get(f"{ready.url}/runs/99").status_code == 404
    assert requests.post(f"{ready.url}/tasks/flaky/pause", json={"note": "a test"}).json() == {"paused": 1}
    assert {task["name"]: task["paused"] for task in requests.get(f"{ready.url}/tasks").json()["tasks"]}["flaky"]
    assert requests.post(f"{ready.url}/tasks/flaky/resume").json() == {"resumed": 1}
    assert requests.post(f"{ready.url}/tasks/none/resume").status_code == 404


def test_readiness_shows_what_keeps_a_task_from_running_and_stays(shop: World) -> None:
    shop.serve()

    def reasons() -> set[str | None]:
        answer = requests.get(f"{shop.url}/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")
        return {task["reason"] for task in answer.json()["tasks"].values()}

    assert reasons() == {"no running worker has its code"}
    shop.consume()
    wait_until(lambda: reasons() == {None}, "all tasks have workers")
    assert "slow is paused" in shop.run("tasks", "pause", "slow", "--note", "a test").stdout
    assert reasons() == {None, "paused: a test"}
    shop.stack.servers["valkey"].kill()
    wait_until(
        lambda: all(reason and ("redis: " in reason or "paused" in reason) for reason in reasons()), "they say it"
    )
    shop.stack.servers["valkey"].restart()
    wait_until(lambda: reasons() == {None, "paused: a test"}, "they can work again")
