"""A record that keeps a worker for ever ends in dead_letter, alone."""

from pathlib import Path

from tests.clients import events
from tests.world import World

_ENDLESS = b'{"endless": true}'

# Loaded by Python in every process of the pod: like a JSON library that hangs on some input.
_FAULT = f"""
import orjson
loads = orjson.loads
def fault(value):
    while value == {_ENDLESS!r}:
        pass
    return loads(value)
orjson.loads = fault
"""


def test_the_guilty_record_is_buried_and_its_neighbours_are_stored(ready: World, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_FAULT)
    made = events(1)
    ready.produce([*made.values(), _ENDLESS], partition=0)
    pod = ready.consume(pythonpath=str(tmp_path), batch_deadline_seconds="1")
    ready.wait_for(2)
    assert ready.ids() == set(made)
    rows = ready.sql("SELECT value, reason FROM dead_letter")
    assert [(bytes(value), reason) for value, reason in rows] == [(_ENDLESS, "killed_its_worker")]
    failures = [line for line in pod.lines("batch.failed") if line["first_offset"] == line["last_offset"]]
    assert len(failures) == 3, "a time limit counts once"
