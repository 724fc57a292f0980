"""Whatever is killed ten times in the middle of the load, every acknowledged record is stored exactly once."""

import signal
import time
from collections.abc import Callable

import psutil
import pytest

from tests.clients import events
from tests.programs import ABSENT, NEVER, Program, signalled
from tests.waiting import wait_until
from tests.world import World

_COUNT = 60_000
_KILLS = 10
_LIFE_SECONDS = 2.5  # supervisord counts an earlier exit as a failed start, and ends the pod after some of them

VICTIMS: dict[str, Callable[[Program], psutil.Process]] = {
    "the bridge": lambda pod: pod.child("--only bridge"),
    "a worker process": lambda pod: pod.child("-m tasks").children()[0],
    "the workers' parent": lambda pod: pod.child("-m tasks"),
    "the pod's Redis": lambda pod: pod.child("valkey-server"),
}


def _grown_up(pod: Program, victim: str, seen: dict[int, float]) -> psutil.Process | None:
    """The victim, once it has been observed for long enough: the start of a process is only known to about a second."""
    try:
        found = VICTIMS[victim](pod)
    except (StopIteration, IndexError, psutil.NoSuchProcess):  # it is being restarted
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
