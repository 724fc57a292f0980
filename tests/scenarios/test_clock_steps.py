"""A clock that is set two hours forth or back under load loses nothing, and stops nothing."""

import os
from pathlib import Path

import pytest

from tests.clients import events
from tests.programs import ABSENT, NEVER
from tests.waiting import wait_until
from tests.world import World

_COUNT = 6_000
_HOURS = 2 * 3600.0

# Loaded by Python itself in every process of the pod: its wall clock is wrong by the time of a file.
_FAULT = """
import os, time
real = time.time
time.time = lambda: real() + os.stat({!r}).st_mtime
"""


@pytest.mark.parametrize("step", [_HOURS, -_HOURS], ids=["forth", "back"])
def test_all_is_stored_and_committed(ready: World, tmp_path: Path, step: float) -> None:
    clock = tmp_path / "clock"
    clock.touch()
    os.utime(clock, (0, 0))
    (tmp_path / "sitecustomize.py").write_text(_FAULT.format(str(clock)))
    made = list(events(_COUNT).items())
    pod = ready.consume(redis_url=ABSENT, batch_records="20", batch_deadline_seconds=NEVER, pythonpath=str(tmp_path))
    ready.produce([value for _, value in made[: _COUNT // 2]])
    wait_until(lambda: ready.count() > 500, "the load is under way")
    os.utime(clock, (0, step))
    ready.wait_for(_COUNT // 2)
    ready.produce([value for _, value in made[_COUNT // 2 :]])
    ready.wait_for(_COUNT)
    ready.holds_exactly(message_id for message_id, _ in made)
    ready.all_committed()
    assert not pod.lines("bridge.stuck")
    assert pod.stop() == 0
