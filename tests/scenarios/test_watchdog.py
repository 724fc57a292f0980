"""A bridge that stores nothing and knows no reason says all it knows, ends, and is started anew."""

import signal

from tests.waiting import wait_until
from tests.world import World, events, signalled


def test_a_stuck_bridge_is_started_anew(ready: World) -> None:
    pod = ready.consume(watchdog_seconds="5")
    worker = pod.child("-m tasks")
    frozen = [worker, *worker.children()]
    for process in frozen:
        signalled(process, signal.SIGSTOP)
    made = events(100)
    ready.produce(list(made.values()))
    stuck = wait_until(lambda: pod.lines("bridge.stuck"), "the bridge gives up", 60)
    assert stuck[0]["in_flight"] > 0
    for process in frozen:
        signalled(process, signal.SIGCONT)
    ready.wait_for(100)
    ready.holds_exactly(made)
