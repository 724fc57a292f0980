"""A users' function runs for each message that its task wants; what fails is retried, and hurts only itself."""

from collections import Counter

import orjson

from tests.clients import events
from tests.waiting import wait_until
from tests.world import World

_COUNT = 3000


def _order(wish: str) -> bytes:
    return orjson.dumps({"type": "order.paid", "wish": wish})


def test_each_message_is_run_once_for_each_task(shop: World) -> None:
    made = events(_COUNT)
    pod = shop.consume()
    shop.produce(list(made.values()))
    shop.wait_for(_COUNT)
    wait_until(lambda: shop.obligations() == 0, "all obligations have ended", 10)
    stored = Counter({str(row[0]): 1 for row in shop.sql("SELECT id FROM message")})
    for task in ("exact", "at_least_once", "in_batches"):
        assert shop.effects(task) == stored, task
    assert shop.sql("SELECT count(*) FROM run") == [(0,)]
    assert pod.stop() == 0


def test_a_run_that_fails_hurts_only_itself(shop: World) -> None:
    wishes = ["fail", "fail once", "reject", "retry", "commit", "kill", "exit"]
    shop.consume()
    shop.produce([_order("nothing") for _ in range(20)] + [_order(wish) for wish in wishes] + [_order("nothing")])
    shop.wait_for(28)
    wait_until(lambda: shop.obligations() == 0, "all obligations have ended", 15)
    failed = dict(shop.sql("SELECT message.payload->>'wish', error FROM run JOIN message ON message.id = message_id"))
    assert failed == {
        "fail": "ValueError: as its message says",
        "reject": "Reject: as its message says",
        "commit": "ProgrammingError: a task with transaction=True must not use COMMIT: what it writes is committed"
        " with the end of its run",
        "kill": "it ended its process 3 times",
        "exit": "it ended its process 3 times",
    }
    attempts = dict(
        shop.sql("SELECT message.payload->>'wish', attempts FROM run JOIN message ON message.id = message_id")
    )
    assert attempts == {"fail": 3, "reject": 1, "commit": 3, "kill": 1, "exit": 1}
    done = shop.sql(
        "SELECT payload->>'wish', count(*) FROM effect JOIN message ON message.id::text = effect.message GROUP BY 1"
    )
    assert dict(done) == {"nothing": 21, "fail once": 1, "retry": 1}


def test_a_run_ends_at_its_time_limit(shop: World) -> None:
    shop.consume()
    shop.produce([orjson.dumps({"type": "slow", "seconds": seconds}) for seconds in (0, 60, 0)])
    shop.wait_for(3)
    wait_until(lambda: shop.obligations() == 0, "all obligations have ended", 10)
    assert shop.sql("SELECT error FROM run") == [("TimeLimitExceeded: it exceeded its time limit",)]
    assert shop.sql("SELECT count(*) FROM effect WHERE task = 'slow'") == [(2,)]


def test_a_queue_of_its_own_is_run_by_its_own_workers(shop: World) -> None:
    shop.consume(task_queues="default")
    shop.produce([orjson.dumps({"type": "slow", "seconds": 0})])
    shop.produce(list(events(100).values()))
    shop.wait_for(101)
    of_others = "SELECT count(*) FROM chunk JOIN task ON task.id = task WHERE name <> 'slow'"
    wait_until(lambda: shop.sql(of_others) == [(0,)], "the others have run", 20)
    assert shop.obligations() == 1
    shop.start("consume", "--only", "tasks", task_queues="slow")
    wait_until(lambda: shop.obligations() == 0, "all obligations have ended", 20)
    refused = shop.run("consume", "--task-queues", "slwo")
    assert refused.returncode == 2
    assert "no task has the queue slwo, but default, slow" in refused.stderr
