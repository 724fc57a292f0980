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
    ready.produce(values[10_000:-100])
    ready.wait_for(_COUNT - 100)
    ready.all_committed()
    signalled(bridge, signal.SIGCONT)
    wait_until(lambda: len(frozen.lines("partitions.assigned")) > 1, "the thawed one is a member again", 60)
    (topic, partition), *_ = (name.split("/") for name in frozen.lines("partitions.assigned")[-1]["partitions"])
    ready.produce(values[-100:], topic, partition=int(partition))
    ready.wait_for(_COUNT)
    ready.holds_exactly(made)
    ready.all_committed()  # the other's partitions too: nothing that the thawed one knew put them back
