"""A bridge that is frozen for longer than the group waits, and thaws, commits nothing for what it lost."""

import signal

from tests.clients import events
from tests.programs import Program, signalled
from tests.waiting import wait_until
from tests.world import World

_COUNT = 20_000


def test_it_loses_its_partitions_and_nothing_else(ready: World) -> None:
    made = events(_COUNT)
    values = list(made.values())
    ready.produce(values[:10_000])
    frozen = ready.consume(batch_records="100", log_level="debug")
    wait_until(lambda: ready.count() > 1000, "the load is under way")
    bridge = frozen.child("--only bridge")
    signalled(bridge, signal.SIGSTOP)
    ready.consume(batch_records="100")  # waits until it has partitions: past the session timeout, all of them
    ready.produce(values[10_000:-100])
    ready.wait_for(_COUNT - 100)
    ready.all_committed()
    signalled(bridge, signal.SIGCONT)
    ours = wait_until(lambda: _assigned_again(frozen), "the thawed one has partitions again", 60)
    topic, number = ours[0].split("/")
    ready.produce(values[-100:], topic, partition=int(number))
    ready.wait_for(_COUNT)
    ready.holds_exactly(made)
    ready.all_committed()
    lines = frozen.lines()
    thawed = [place for place, line in enumerate(lines) if line["event"] == "partitions.assigned"][1]
    committed = {
        f"{line['topic']}/{line['partition']}" for line in lines[thawed:] if line["event"] == "offset.committed"
    }
    assert committed <= set(_assigned_again(frozen))  # otherwise the other bridge reads its stored records again


def _assigned_again(bridge: Program) -> list[str]:
    """What it was assigned after the first time; a cooperative group assigns in several steps, some of them empty."""
    return [partition for line in bridge.lines("partitions.assigned")[1:] for partition in line["partitions"]]
