"""Whatever is killed ten times in the middle of the load, every acknowledged record is stored exactly once."""

import signal
import time
from collections.abc import Callable

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


def _grown_up(pod: Program, victim: str, seen: dict[int, float]) -> psutil.Process | None:
    """The victim, once it has been seen for long enough: when a process began is only known to about a second."""
    try:
        found = VICTIMS[victim](pod)
    except (StopIteration, IndexError, psutil.NoSuchProcess):  # it is being started anew
        return None
    since = seen.setdefault(found.pid, time.monotonic())
    return found if time.monotonic() - since > _LIFE_SECONDS else None


@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_is_lost_when_it_is_killed(ready: World, victim: str) -> None:
    made = events(_COUNT)
    pod = ready.consume(redis_url=ABSENT, batch_records="200", batch_deadline_seconds=NEVER)
    seen: dict[int, float] = {}
    for _ in ready.under_load(made, _KILLS):
        found = wait_until(lambda: _grown_up(pod, victim, seen), "the victim runs")
        assert found is not None
        signalled(found, signal.SIGKILL)
    ready.wait_for(_COUNT)
    ready.holds_exactly(made)
    ready.all_committed()
    assert pod.stop() == 0
