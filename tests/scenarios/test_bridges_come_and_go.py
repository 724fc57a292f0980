"""Bridges that join and leave a group under load lose nothing and store nothing twice."""

from tests.waiting import wait_until
from tests.world import World, events

_COUNT = 30_000


def test_three_bridges_take_turns(ready: World) -> None:
    made = events(_COUNT)
    values = list(made.values())
    ready.produce(values[:15_000])
    first = ready.consume(batch_records="100")
    wait_until(lambda: ready.count() > 1000, "the load is under way")
    others = [ready.consume(batch_records="100") for _ in range(2)]
    ready.produce(values[15_000:])
    assert first.stop() == 0
    wait_until(lambda: ready.count() > 20_000, "the others go on", 90)
    assert others[0].stop() == 0
    ready.wait_for(_COUNT, 90)
    ready.holds_exactly(made)
    stored = [line for pod in (first, *others) for line in pod.lines("batch.stored")]
    again = sum(line["redelivered"] for line in stored)
    print(f"{again} of {_COUNT} records were handed over twice")
    assert again < _COUNT / 10
