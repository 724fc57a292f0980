"""Whatever is killed, a task with transaction=True has its effect exactly once, and the others at least once."""

import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import psutil
import pytest

from tests.clients import events
from tests.programs import Program, signalled
from tests.waiting import wait_until
from tests.world import World

_COUNT = 20_000
_KILLS = 10
_LIFE_SECONDS = 2.5  # supervisord counts an earlier exit as a failed start, and ends the pod after some of them

VICTIMS: dict[str, Callable[[Program], psutil.Process]] = {
    "a process of the tasks": lambda pod: pod.child("-m tasks execute").children()[0],
    "the tasks' parent": lambda pod: pod.child("-m tasks execute"),
}


def _holds(world: World) -> None:
    assert world.sql("SELECT count(*) FROM run") == [(0,)]
    stored = Counter({str(row[0]): 1 for row in world.sql("SELECT id FROM message")})
    assert world.effects("exact") == stored
    assert world.effects("in_batches") == stored
    assert set(world.effects("at_least_once")) == set(stored)


@pytest.mark.parametrize("victim", VICTIMS)
def test_effects_are_exact_when_a_process_is_killed(shop: World, victim: str) -> None:
    made = events(_COUNT)
    pod = shop.consume(batch_records="200")
    killed: set[int] = set()
    seen: dict[int, float] = {}

    def kill() -> bool:
        with suppress(StopIteration, IndexError, psutil.NoSuchProcess):  # it is being restarted
            found = VICTIMS[victim](pod)
            age = time.monotonic() - seen.setdefault(found.pid, time.monotonic())
            if found.pid not in killed and age > _LIFE_SECONDS:
                killed.add(found.pid)
                signalled(found, signal.SIGKILL)
                return True
        return False

    for _ in shop.under_load(made, _KILLS):
        wait_until(kill, "it was killed")
    shop.wait_for(_COUNT)
    wait_until(lambda: shop.obligations() == 0, "all obligations have ended", 60)
    _holds(shop)


@pytest.mark.parametrize("name", ["postgresql", "valkey"])
def test_effects_are_exact_when_a_server_is_killed(shop: World, name: str) -> None:
    made = events(_COUNT)
    shop.consume(batch_records="200")
    server = shop.stack.servers[name]
    for _ in shop.under_load(made, _KILLS):
        server.kill()
        server.restart()
    shop.wait_for(_COUNT, 90)
    wait_until(lambda: shop.obligations() == 0, "all obligations have ended", 60)
    _holds(shop)


def test_effects_are_exact_when_a_pod_is_frozen_for_longer_than_it_is_trusted(shop: World) -> None:
    made = events(_COUNT)
    pod = shop.consume(batch_records="200")
    other = shop.start("consume", "--only", "tasks")
    wait_until(lambda: other.process.poll() is None and len(other.family()) > 2, "its processes run")
    for number, _ in enumerate(shop.under_load(made, _KILLS)):
        if number == _KILLS // 2:
            parent = pod.child("-m tasks execute")
            frozen = [parent, *parent.children()]
            for process in frozen:
                signalled(process, signal.SIGSTOP)
    shop.wait_for(_COUNT)
    wait_until(lambda: _unlocked(shop), "what the frozen ones had claimed was taken over", 60)
    for process in frozen:
        signalled(process, signal.SIGCONT)
    wait_until(lambda: shop.obligations() == 0, "all obligations have ended", 60)
    _holds(shop)


def _unlocked(world: World) -> bool:
    """Only what a frozen transaction has locked is still open."""
    return world.sql("SELECT count(*) FROM (SELECT FROM chunk FOR UPDATE SKIP LOCKED) AS free") == [(0,)]
