"""The servers, once for all tests, and a world for each test. A server that does not start fails the run."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from bootstrap.localstack.stack import Stack
from tasks.config.environment import child_environment
from tasks.store import connection, spans
from tests.programs import ROOT
from tests.records import OTHER_SOURCE, SOURCE
from tests.world import World

# The duration of an example depends on the load of the machine, not on the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Kafka, PostgreSQL and Valkey of our own, or those that variables name."""
    directory: Path = tmp_path_factory.mktemp("stack")
    with Stack(directory, child_environment({}), ROOT / ".local" / "kafka-4.4.0") as stack:
        yield stack


@pytest.fixture
def world(stack: Stack) -> Iterator[World]:
    """A database and a topic of this test's own, not initialized."""
    world = World(stack)
    yield world
    world.close()
    world.show_logs()  # pytest shows what is printed when the test failed


@pytest.fixture
def ready(world: World) -> World:
    """A world after `init`."""
    world.init()
    return world


@pytest.fixture
def tables(ready: World) -> Iterator[World]:
    """A ready world whose database the test itself may use as our processes do, and that knows two partitions."""
    connection.configure(ready.variables["DATABASE_URL"], "test", connections=2)
    with connection.database.connection_context():
        spans.stored_until({SOURCE: 0, OTHER_SOURCE: 0})
    yield ready
    connection.database.close()
    connection.database.close_all()
