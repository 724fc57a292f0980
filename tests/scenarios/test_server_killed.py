"""Kafka, PostgreSQL or Redis killed in the middle of the load and started again: nothing is lost, nothing twice."""

import pytest

from tests.waiting import wait_until
from tests.world import NEVER, World, events

_COUNT = 20_000


@pytest.mark.parametrize("name", ["kafka", "postgresql", "valkey"])
def test_nothing_is_lost_when_a_server_is_killed(ready: World, name: str) -> None:
    made = events(_COUNT)
    ready.produce(list(made.values()))
    pod = ready.consume(batch_records="100", batch_deadline_seconds=NEVER)
    wait_until(lambda: ready.count() > 1000, "the load is under way")
    server = ready.stack.servers[name]
    server.kill()
    server.restart()
    if ready.count() < _COUNT:
        ready.stored_within(15, f"{name} is back")
    ready.wait_for(_COUNT, 90)
    ready.holds_exactly(made)
    assert pod.stop() == 0
