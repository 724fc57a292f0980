"""A bridge that is frozen for longer than the group waits, and thaws, commits nothing for what it lost."""

import signal

from tests.waiting import wait_until
from tests.world import World, events, signalled

_COUNT = 20_000


def test_it_loses_its_partitions_and_nothing_else(ready: World) -> None:
    made = events(_COUNT)
    values = list(made.values())
    ready.produce(values[:10_000])
    frozen = ready.consume(batch_records="100")
    wait_until(lambda: ready.count() > 1000, "the load is under way")
    bridge = frozen.child("--only bridge")
    signalled(bridge, signal.SIGSTOP)
    ready.consume(batch_records="100")  # waits until it has partitions: past the session timeout, all of them
    ready.produce(values[10_000:])
    wait_until(lambda: ready.count() > 12_000, "the other goes on", 60)
    signalled(bridge, signal.SIGCONT)
    ready.wait_for(_COUNT, 90)
    ready.holds_exactly(made)
    wait_until(lambda: len(frozen.lines("partitions.assigned")) > 1, "the thawed one is a member again", 60)
    ready.all_committed()
