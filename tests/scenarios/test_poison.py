"""Poison records of every kind, anywhere in a batch, affect only themselves."""

import uuid

import orjson
import pytest

from tests.clients import events
from tests.world import World

_POISON = {
    b"\xff\xfe": "invalid_utf8",
    b"not json": "not_json",
    b"": "not_json",
    b'{"a": NaN}': "not_json",
    b'{"a": "\\u0000"}': "nul",
    b'{"a": "\\ud800"}': "not_json",
    b"[" * 5000 + b"]" * 5000: "not_json",
    b'{"n": 1e400}': "not_json",
    b'{"n": 0.' + b"0" * 20_000 + b"1}": "refused_by_postgresql",
}


@pytest.mark.parametrize("place", [0, 20, 40, None], ids=["start", "middle", "end", "only poison"])
def test_its_neighbours_are_stored(ready: World, place: int | None) -> None:
    made = {} if place is None else events(40)
    values = list(made.values())
    values[place or 0 : place or 0] = _POISON
    ready.produce(values, partition=0, options={"linger.ms": 100})
    ready.consume(linger_ms="1000")
    ready.wait_for(len(values))
    assert ready.ids() == set(made)
    rows = ready.sql('SELECT value, reason, "offset" FROM dead_letter ORDER BY "offset"')
    assert [(bytes(value), reason) for value, reason, _ in rows] == list(_POISON.items())
    assert [offset for *_, offset in rows] == list(range(place or 0, (place or 0) + len(_POISON)))


def test_what_is_odd_and_not_poison_is_stored(ready: World) -> None:
    large = orjson.dumps({"id": str(uuid.uuid4()), "filler": "x" * 5_000_000})
    ready.produce([large], options={"message.max.bytes": 10_000_000}, partition=0)
    ready.produce([None, b"1"], partition=0)
    ready.produce([b"2"], key=b"\x00\xff", headers=[("bytes", b"\x00\xfe")], partition=0)
    ready.consume()
    ready.wait_for(4)
    rows = ready.sql("SELECT payload IS NULL, key, headers->>'bytes' FROM message ORDER BY \"offset\"")
    assert rows == [
        (False, None, None),
        (True, None, None),
        (False, None, None),
        (False, "\\x00ff", "\\x00fe"),
    ]
