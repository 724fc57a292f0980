"""With TASK_POOL=threads functions that wait run side by side in one process, and the promises hold."""

import signal
import time
from collections import Counter
from contextlib import suppress

import orjson
import psutil

from tests.clients import events
from tests.programs import signalled
from tests.waiting import wait_until
from tests.world import World

_THREADS = 32
_WAIT_SECONDS = 0.05  # of the task `waiting`
_LIFE_SECONDS = 2.5  # supervisord counts an earlier exit as a failed start


def test_effects_are_exact_when_the_process_is_killed(shop: World) -> None:
    made = events(6_000)
    pod = shop.consume(batch_records="100", task_pool="threads", task_workers="8")
    killed: set[int] = set()
    seen: dict[int, float] = {}

    def kill() -> bool:
        with suppress(StopIteration, psutil.NoSuchProcess):  # it is being restarted
            process = pod.child("-m tasks execute")
            age = time.monotonic() - seen.setdefault(process.pid, time.monotonic())
            if process.pid not in killed and age > _LIFE_SECONDS:
                assert not process.children()
                killed.add(process.pid)
                signalled(process, signal.SIGKILL)
                return True
        return False

    for _ in shop.under_load(made, 2):
        wait_until(kill, "it was killed")
    shop.wait_for(len(made))
    wait_until(lambda: shop.obligations() == 0, "all obligations have ended", 60)
    stored = Counter({str(row[0]): 1 for row in shop.sql("SELECT id FROM message")})
    assert (shop.effects("exact"), shop.effects("in_batches")) == (stored, stored)
    assert set(shop.effects("at_least_once")) == set(stored)
    assert shop.sql("SELECT count(*) FROM run") == [(0,)]
    assert len(killed) == 2
    assert pod.stop() == 0


def test_functions_that_wait_run_side_by_side(shop: World) -> None:
    count = 4_000
    pod = shop.consume()  # stores while nothing runs them
    shop.sql("INSERT INTO paused_task (name, reason) VALUES ('waiting', 'a test')")
    shop.produce([orjson.dumps({"type": "wait"}) for _ in range(count)])
    shop.wait_for(count)
    assert pod.stop() == 0
    threads = shop.start("consume", "--only", "tasks", task_pool="threads", task_workers=str(_THREADS))
    wait_until(lambda: shop.sql("SELECT count(*) FROM task_worker") == [(1,)], "it runs")
    shop.sql("DELETE FROM paused_task")
    began = time.monotonic()
    wait_until(lambda: shop.obligations() == 0, "all obligations have ended", 60)
    rate = count / (time.monotonic() - began)
    print(f"{rate:.0f} runs/s in {_THREADS} threads; one would make {1 / _WAIT_SECONDS:.0f}")
    assert rate > 5 / _WAIT_SECONDS
    assert threads.stop() == 0


def test_what_fails_or_kills_in_a_thread_hurts_only_itself(shop: World) -> None:
    shop.consume(task_pool="threads", task_workers="4")
    wishes = ["fail", "fail once", "reject", "kill"]
    shop.produce([orjson.dumps({"type": "order.paid", "wish": wish}) for wish in [*wishes, *["nothing"] * 20]])
    shop.wait_for(24)
    wait_until(lambda: shop.obligations() == 0, "all obligations have ended", 90)
    failed = dict(shop.sql("SELECT message.payload->>'wish', error FROM run JOIN message ON message.id = message_id"))
    assert failed == {
        "fail": "ValueError: as its message says",
        "reject": "Reject: as its message says",
        "kill": "it ended its process 3 times",
    }
    assert len(shop.effects("flaky")) == 21
