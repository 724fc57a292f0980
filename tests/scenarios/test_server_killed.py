"""Kafka, PostgreSQL or Redis killed ten times in the middle of the load: nothing is lost, nothing twice."""

import pytest

from tests.clients import events
from tests.programs import NEVER
from tests.world import World

_COUNT = 20_000
_KILLS = 10


@pytest.mark.parametrize("name", ["kafka", "postgresql", "valkey"])
def test_nothing_is_lost_when_a_server_is_killed(ready: World, name: str) -> None:
    made = events(_COUNT)
    pod = ready.consume(batch_records="100", batch_deadline_seconds=NEVER)
    server = ready.stack.servers[name]
    for _ in ready.under_load(made, _KILLS):
        server.kill()
        server.restart()
    ready.wait_for(_COUNT, 90)
    ready.holds_exactly(made)
    ready.all_committed()
    assert pod.stop() == 0
