"""A record that kills every worker it meets ends in dead_letter, alone."""

from pathlib import Path

from tests.clients import events
from tests.world import World

_KILLER = b'{"kill": true}'

# Loaded by Python in every process of the pod: like a JSON library with a segmentation fault.
_FAULT = f"""
import os, signal, orjson
loads = orjson.loads
def fault(value):
    if value == {_KILLER!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return loads(value)
orjson.loads = fault
"""


def test_the_guilty_record_is_buried_and_its_neighbours_are_stored(ready: World, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_FAULT)
    made = events(40)
    values = list(made.values())
    ready.produce([*values[:20], _KILLER, *values[20:]], partition=0)
    pod = ready.consume(pythonpath=str(tmp_path))
    ready.wait_for(41, 120)
    assert ready.ids() == set(made)
    rows = ready.sql("SELECT value, reason FROM dead_letter")
    assert [(bytes(value), reason) for value, reason in rows] == [(_KILLER, "killed_its_worker")]
    assert pod.lines("batch.split"), "the batch was halved"
