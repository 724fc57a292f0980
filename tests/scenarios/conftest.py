"""A server that the tests of a file share, because what one client does must not affect the next."""

from collections.abc import Iterator

import pytest

from bootstrap.localstack.stack import Stack
from tests.programs import Program
from tests.user_tasks import EFFECT
from tests.world import World


@pytest.fixture(scope="module")
def server(stack: Stack) -> Iterator[tuple[World, Program]]:
    """A world with a running API."""
    world = World(stack)
    world.init()
    yield world, world.serve()
    world.close()


@pytest.fixture
def shop(world: World) -> World:
    """A world with the tasks of tests/user_tasks.py, and their table."""
    world.variables["TASKS"] = "tests.user_tasks"
    world.init()
    world.sql(EFFECT)
    return world
