"""The ways to run a function for each message that `make bench-tasks` compares, with a common shape."""

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import redis

from bench import servers
from bench.messages import produce
from tests.world import World

_BENCH_PYTHON = str(servers.ROOT / ".venv-bench" / "bin" / "python")
_WAITING_JOBS = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
PROCESSES = 2  # that run the function

Query = Callable[[str], int]  # the number that a statement returns, in a session that stays open
Command = Sequence[str]


class Contestant(ABC):
    """A way to run the function of TASKS for each message. `runs` is how many are measured, by function."""

    def __init__(self, name: str, **runs: int) -> None:
        self.name, self.runs = name, runs

    @abstractmethod
    def queue(self, world: World, count: int) -> None:
        """Put messages where they wait."""

    @abstractmethod
    def commands(self, count: int) -> Sequence[Command]:
        """The processes that run the function for them."""

    @abstractmethod
    def left(self, world: World, query: Query, count: int) -> int:
        """How many of the messages have not run to their end."""


class Backend(Contestant):
    """This backend, whose messages are in Kafka."""

    def queue(self, world: World, count: int) -> None:
        """Produce them."""
        produce(world.variables["KAFKA_BROKERS"], world.topic, count, 1)

    def commands(self, count: int) -> Sequence[Command]:
        """The consumer pod."""
        return [[sys.executable, "-m", "bootstrap", "consume"]]

    def left(self, world: World, query: Query, count: int) -> int:
        """Those that are not stored, and the obligations of the others."""
        # In one statement, because an obligation becomes visible together with its message.
        return count - query(
            "SELECT (SELECT coalesce(sum(messages), 0) FROM message_count)"
            " - (SELECT coalesce(sum(messages), 0) FROM chunk) - (SELECT count(*) FROM run)"
        )


class Naive(Backend):
    """One Celery task a message, sent by a bridge from the same topic; it runs the function and stores the message."""

    def commands(self, count: int) -> Sequence[Command]:
        """A worker and a bridge."""
        naive = [sys.executable, "-m", "bench.naive"]
        return [[*naive, "worker"], [*naive, "bridge", str(count)]]

    def left(self, world: World, query: Query, count: int) -> int:
        """Those that are not stored."""
        return count - query("SELECT count(*) FROM message")


class CeleryAlone(Contestant):
    """A Celery task a message, queued in Redis before, acknowledged late."""

    _command = (sys.executable, "-W", "ignore", "-m", "bench.celery_alone")

    def queue(self, world: World, count: int) -> None:
        """Queue them."""
        run([*self._command, str(count)], world)

    def commands(self, count: int) -> Sequence[Command]:
        """A worker."""
        return [self._command]

    def left(self, world: World, query: Query, count: int) -> int:
        """Those that are queued or not acknowledged."""
        with redis.Redis.from_url(world.variables["REDIS_URL"]) as server:
            queued = server.llen(f"alone.{world.variables['KAFKA_GROUP_ID']}")
            return int(queued) + int(server.hlen("unacked"))


class Procrastinate(Contestant):
    """A job a message in PostgreSQL."""

    # Not as __main__, which would be another name of the job than that of who runs it.
    _command = (_BENCH_PYTHON, "-c", "from bench.procrastinate_alone import main; main()")

    def queue(self, world: World, count: int) -> None:
        """Queue them."""
        run([*self._command, str(count)], world)

    def commands(self, count: int) -> Sequence[Command]:
        """Processes that run one at a time each."""
        return [self._command] * PROCESSES

    def left(self, world: World, query: Query, count: int) -> int:
        """Those that wait or run."""
        return query(_WAITING_JOBS)


def environment(world: World) -> dict[str, str]:
    """The environment of a contestant's processes."""
    return {**os.environ, **world.variables, "TASK_WORKERS": str(PROCESSES)}


def run(command: Command, world: World) -> None:
    """Run a program of ours to its end. Raises subprocess.CalledProcessError."""
    subprocess.run(command, env=environment(world), cwd=servers.ROOT, check=True)
