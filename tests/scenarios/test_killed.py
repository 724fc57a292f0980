"""Whatever is killed ten times in the middle of the load, every acknowledged record is stored exactly once."""

import random
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import psutil
import pytest

from tests.waiting import wait_until
from tests.world import ABSENT, NEVER, Program, World, events, signalled

_COUNT = 60_000
_KILLS = 10
_LIFE_SECONDS = 2.5  # what ends earlier did not start, to supervisord: after some such it ends the pod

VICTIMS: dict[str, Callable[[Program], psutil.Process]] = {
    "the bridge": lambda pod: pod.child("--only bridge"),
    "a worker process": lambda pod: pod.child("-m tasks").children()[0],
    "the workers' parent": lambda pod: pod.child("-m tasks"),
    "the pod's Redis": lambda pod: pod.child("valkey-server"),
}


def _grown_up(pod: Program, victim: str) -> psutil.Process | None:
    try:
        found = VICTIMS[victim](pod)
        age = datetime.now(UTC).timestamp() - found.create_time()
        return found if age > _LIFE_SECONDS else None
    except (StopIteration, IndexError, psutil.NoSuchProcess):  # it is being started anew
        return None


def _stored(world: World, least: int) -> bool:
    return world.count() >= least


@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_is_lost_when_it_is_killed(ready: World, victim: str) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"seed {seed}")
    made = list(events(_COUNT).items())
    pod = ready.consume(redis_url=ABSENT, batch_records="200", batch_deadline_seconds=NEVER)
    for number in range(_KILLS):
        part = made[number * _COUNT // _KILLS : (number + 1) * _COUNT // _KILLS]
        # Or at once: it is being started, or joins its group.
        moment = ready.count() + chance.choice((0, chance.randrange(1, len(part))))
        ready.produce([value for _, value in part])
        wait_until(partial(_stored, ready, moment), "the load is under way", 60)
        found = wait_until(lambda: _grown_up(pod, victim), "the victim runs")
        assert found is not None
        signalled(found, signal.SIGKILL)
    ready.wait_for(_COUNT)
    ready.holds_exactly(message_id for message_id, _ in made)
    assert pod.stop() == 0
