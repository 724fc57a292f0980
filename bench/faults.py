"""The faults of `make chaos`, and the consumer pods that they hit."""

import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg2
import redis

from bench.victim import Victim
from bootstrap.localstack.ports import free_port
from tests.programs import ABSENT, Program
from tests.replication import base_backup, detach, port_of, promote, standby
from tests.three_brokers import ThreeBrokers
from tests.world import World

# The ends of command lines, and which of a process and its children are hit.
_BRIDGE, _STORING, _TASKS = "--only bridge$", "-m tasks$", "-m tasks execute$"
_THE_PARENT, _A_CHILD, _ALL = slice(1), slice(1, 2), slice(None)


class Pods:
    """Two consumer pods, one with its own Redis and one with the shared one; restarted when they end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.running = [self._start(number) for number in range(2)]

    def _start(self, number: int) -> Program:
        return self._world.start("consume", **({"redis_url": ABSENT} if number == 0 else {}))

    def processes(self, pod: Program, pattern: str) -> list[psutil.Process]:
        """A process of a pod by its command line, and its children; none while it is being restarted."""
        with suppress(StopIteration, psutil.Error):
            found = next(one for one in pod.family() if re.search(pattern, " ".join(one.cmdline())))
            return [found, *found.children()]
        return []

    def replace(self, number: int) -> None:
        """Stop a pod with SIGTERM, and start a new one."""
        self.running[number].stop(60)
        self.running[number] = self._start(number)

    def mind(self) -> int:
        """Restart ended pods, as Kubernetes would; returns their number."""
        ended = [number for number, pod in enumerate(self.running) if pod.process.poll() is not None]
        for number in ended:
            self.running[number] = self._start(number)
        return len(ended)


@contextmanager
def _frozen(processes: Sequence[psutil.Process]) -> Iterator[None]:
    for process in processes:
        with suppress(psutil.Error):
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.Error):
                process.resume()


class Faults:
    """The faults, each a method without parameters that returns when the fault is over."""

    def __init__(self, world: World, pods: Pods, brokers: ThreeBrokers, victim: Victim, chance: random.Random) -> None:
        self._world = world
        self._brokers = brokers
        self._victim = victim
        self._pods = pods
        self._chance = chance

    def all(self) -> dict[str, Callable[[], None]]:
        """The faults by name."""
        return {
            "kill -9 a bridge": lambda: self._kill(_BRIDGE),
            "kill -9 a worker process": lambda: self._kill(_STORING, _A_CHILD),
            "kill -9 a workers' parent": lambda: self._kill(_STORING),
            "kill -9 a process of the tasks": lambda: self._kill(_TASKS, _A_CHILD),
            "kill -9 the tasks' parent": lambda: self._kill(_TASKS),
            "kill -9 a pod's Redis": lambda: self._kill("valkey-server", pod=0),
            "SIGTERM a pod, start another": lambda: self._pods.replace(self._chance.randrange(2)),
            "freeze a bridge for 15 s": lambda: self._freeze(_BRIDGE, 15),
            "freeze a workers' parent for 10 s": lambda: self._freeze(_STORING, 10),
            # Longer than what they have claimed is theirs without a heartbeat.
            "freeze the tasks' parent for 20 s": lambda: self._freeze(_TASKS, 20),
            "freeze a process of the tasks for 20 s": lambda: self._freeze(_TASKS, 20, _A_CHILD),
            "freeze the tasks' parent and processes for 20 s": lambda: self._freeze(_TASKS, 20, _ALL),
            "kill -9 Redis": lambda: self._restart("valkey", 0),
            "Redis away for 10 s": lambda: self._restart("valkey", 10),
            "FLUSHALL": self._flush,
            "kill -9 PostgreSQL": lambda: self._restart("postgresql", 0),
            "PostgreSQL away for 30 s": lambda: self._restart("postgresql", 30),
            "PostgreSQL ends all connections": self._end_connections,
            "PostgreSQL read-only for 5 s, old sessions kept": self._read_only,
            "message locked for 90 s": self._lock_table,
            "PostgreSQL is restored, and lacks 5 s": self._restore,
            "a standby is promoted, and lacks 5 s": self._promote,
            "kill -9 a broker": lambda: self._restart_brokers(1, 0),
            "kill -9 two brokers": lambda: self._restart_brokers(2, 0),
            "Kafka away for 10 s": lambda: self._restart_brokers(3, 10),
            "the other topic is recreated": lambda: self._recreate(0),
            "the other topic is gone for 10 s": lambda: self._recreate(10),
            "the other topic's records are deleted unread": self._delete_unread,
            "the other topic gets a partition": self._extend,
        }

    def _pod(self) -> Program:
        return self._chance.choice(self._pods.running)

    def _kill(self, pattern: str, which: slice = _THE_PARENT, pod: int | None = None) -> None:
        for process in self._pods.processes(self._pod() if pod is None else self._pods.running[pod], pattern)[which]:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)

    def _freeze(self, pattern: str, seconds: float, which: slice = _THE_PARENT) -> None:
        with _frozen(self._pods.processes(self._pod(), pattern)[which]):
            time.sleep(seconds)

    def _restart(self, name: str, seconds: float) -> None:
        server = self._world.stack.servers[name]
        server.kill()
        time.sleep(seconds)
        server.restart()

    def _restart_brokers(self, count: int, seconds: float) -> None:
        hit = self._chance.sample(sorted(self._brokers.servers), count)
        self._brokers.kill(hit)
        time.sleep(seconds)
        self._brokers.restart(hit)

    def _recreate(self, seconds: float) -> None:
        with self._victim.changing():
            self._world.delete_topic(self._victim.topic)
            time.sleep(seconds)
            self._world.create_topic(self._victim.topic)

    def _delete_unread(self) -> None:
        with _frozen([one for pod in self._pods.running for one in self._pods.processes(pod, _BRIDGE)]):
            time.sleep(3)
            self._world.delete_records(self._world.ends(self._victim.topic), self._victim.topic)

    def _extend(self) -> None:
        self._world.add_partitions(len(self._world.ends(self._victim.topic)) + 1, self._victim.topic)

    def _flush(self) -> None:
        with redis.Redis.from_url(self._world.variables["REDIS_URL"]) as server:
            server.flushall()

    def _end_connections(self) -> None:
        self._world.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    def _read_only(self) -> None:
        # As after a failover: sessions that began meanwhile stay read-only and are not ended.
        setting = "ALTER DATABASE {database} SET default_transaction_read_only"
        self._world.admin(f"{setting} = on")
        self._end_connections()
        time.sleep(5)
        self._world.admin(f"{setting} = off")

    def _lock_table(self) -> None:
        # Like CREATE INDEX: longer than the deadline of a batch, so that workers are killed while they wait.
        connection = psycopg2.connect(self._world.variables["DATABASE_URL"])
        try:
            with connection.cursor() as cursor:
                cursor.execute("LOCK TABLE message IN SHARE MODE")
                time.sleep(90)
        finally:
            connection.close()

    def _restore(self) -> None:
        copy = self._world.stack.directory / "copy"
        base_backup(port_of(self._world.stack), copy)
        time.sleep(5)
        (copy / "standby.signal").unlink()
        self._exchange(copy)

    def _promote(self) -> None:
        copy, port = self._world.stack.directory / "copy", free_port()
        base_backup(port_of(self._world.stack), copy)
        server = standby(copy, port)
        server.start()
        server.wait()
        detach(port)
        time.sleep(5)
        promote(port)
        server.stop()
        self._exchange(copy)

    def _exchange(self, copy: Path) -> None:
        """Let PostgreSQL go on with another data directory."""
        server, data = self._world.stack.servers["postgresql"], self._world.stack.directory / "data" / "postgresql"
        server.kill()
        # Its processes may write for a moment still, to where their directory is now.
        data.rename(old := data.with_name("replaced"))
        copy.rename(data)
        server.restart()
        shutil.rmtree(old)
