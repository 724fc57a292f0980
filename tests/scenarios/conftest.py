"""A server that the tests of a file share, because what one client does must not affect the next."""

from collections.abc import Iterator

import pytest

from bootstrap.localstack.stack import Stack
from tests.programs import Program
from tests.world import World


@pytest.fixture(scope="module")
def server(stack: Stack) -> Iterator[tuple[World, Program]]:
    """A world with a running API."""
    world = World(stack)
    world.init()
    yield world, world.serve()
    world.close()
