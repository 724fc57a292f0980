"""A test's part of the servers: its own database, topics and consumer group."""

import contextlib
import uuid

import psycopg2

from bootstrap.commands import init
from bootstrap.localstack.ports import free_port
from bootstrap.localstack.stack import Stack
from tasks.config import settings
from tasks.config.settings import Settings
from tasks.store.connection import database
from tests.assertions import Assertions
from tests.clients import execute
from tests.operators import Operators
from tests.programs import Programs


class World(Programs, Assertions, Operators):
    """What a test starts (programs), talks to (clients), asserts (assertions) and changes in Kafka (operators).

    `variables` are its settings.
    """

    def __init__(self, stack: Stack, topics: int = 1) -> None:
        super().__init__()
        name = f"t{uuid.uuid4().hex[:12]}"
        self.topics = [name if number == 0 else f"{name}-{number}" for number in range(topics)]
        self.topic = self.topics[0]
        self.stack = stack
        server = stack.variables["DATABASE_URL"].rsplit("/", 1)[0]
        self._database = name
        execute(f"{server}/backend", f"CREATE DATABASE {name}")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.variables = {
            **stack.variables,
            "DATABASE_URL": f"{server}/{name}",
            "KAFKA_TOPICS": ",".join(self.topics),
            "KAFKA_CALLS_TOPIC": f"{name}-calls",
            "KAFKA_GROUP_ID": name,
            "KAFKA_PARTITIONS": "3",
            "ADDRESS": "127.0.0.1",
            "PORT": str(self.port),
            "LOG_FORMAT": "json",
            "APP_ENV": "test",
            "WORKERS": "2",
        }

    def settings(self, **changed: str) -> Settings:
        """The settings of this world, for code that runs in the test itself."""
        return settings.load({}, {**self.variables, **{name.upper(): value for name, value in changed.items()}})

    def init(self) -> None:
        """What `init` does, without a process of its own, which takes a second or two before each of many tests."""
        init.run(self.settings(), {}, check=False)
        database.close_all()

    def admin(self, statement: str) -> None:
        """SQL on the server's own database, about this world's."""
        server = self.variables["DATABASE_URL"].rsplit("/", 1)[0]
        execute(f"{server}/postgres", statement.format(database=self._database))

    def close(self) -> None:
        """End the programs and drop the database."""
        self.end_programs()
        # After a crash PostgreSQL reads every file of every database; a suite makes two hundred of them.
        with contextlib.suppress(psycopg2.OperationalError):
            self.admin("DROP DATABASE {database} WITH (FORCE)")
