"""Kafka, PostgreSQL or Redis killed ten times in the middle of the load: nothing is lost, nothing twice."""

import random
from functools import partial

import pytest

from tests.waiting import wait_until
from tests.world import NEVER, World, events

_COUNT = 20_000
_KILLS = 10


def _stored(world: World, least: int) -> bool:
    return world.count() >= least


@pytest.mark.parametrize("name", ["kafka", "postgresql", "valkey"])
def test_nothing_is_lost_when_a_server_is_killed(ready: World, name: str) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"seed {seed}")
    made = list(events(_COUNT).items())
    pod = ready.consume(batch_records="100", batch_deadline_seconds=NEVER)
    server = ready.stack.servers[name]
    for number in range(_KILLS):
        part = made[number * _COUNT // _KILLS : (number + 1) * _COUNT // _KILLS]
        moment = ready.count() + chance.randrange(len(part))
        ready.produce([value for _, value in part])
        wait_until(partial(_stored, ready, moment), "the load is under way", 60)
        server.kill()
        server.restart()
    ready.wait_for(_COUNT, 90)
    ready.holds_exactly(message_id for message_id, _ in made)
    assert pod.stop() == 0
