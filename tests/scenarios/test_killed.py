"""Whatever is killed in the middle of the load, every acknowledged record is stored exactly once."""

import signal
from collections.abc import Callable

import pytest

from tests.waiting import wait_until
from tests.world import ABSENT, Program, World, events, signalled

_COUNT = 20_000

VICTIMS: dict[str, Callable[[Program], None]] = {
    "the bridge": lambda pod: signalled(pod.child("--only bridge"), signal.SIGKILL),
    "a worker process": lambda pod: signalled(pod.child("-m tasks").children()[0], signal.SIGKILL),
    "the workers' parent": lambda pod: signalled(pod.child("-m tasks"), signal.SIGKILL),
    "the pod's Redis": lambda pod: signalled(pod.child("valkey-server"), signal.SIGKILL),
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_is_lost_when_it_is_killed(ready: World, victim: str) -> None:
    made = events(_COUNT)
    ready.produce(list(made.values()))
    pod = ready.consume(redis_url=ABSENT, batch_records="200")
    wait_until(lambda: ready.count() > 1000, "the load is under way")
    VICTIMS[victim](pod)
    ready.wait_for(_COUNT)
    assert ready.ids() == set(made)
    assert pod.stop() == 0
