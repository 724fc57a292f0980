"""Apache Kafka, PostgreSQL and Valkey on this machine, without Docker, Java or root."""

import contextlib
import os
import platform
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from bootstrap.localstack import jars
from bootstrap.localstack.binaries import java, postgresql, valkey
from bootstrap.localstack.ports import LOOPBACK, accepts, free_port
from bootstrap.localstack.process import ServerProcess
from tasks.errors import LocalStackError

_NEEDED_BYTES = 1_000_000_000


class Stack:
    """The servers that `outside` does not name, with data in `directory`. A context manager.

    `variables` are DATABASE_URL, KAFKA_BROKERS and REDIS_URL of all three, ours or outside. Ours listen on `address`,
    on `ports` (of kafka, postgresql, valkey) or on free ones. `kafka_properties` override ours; `kafka_users` are SCRAM
    users in the format of Kafka's storage tool.
    """

    def __init__(
        self,
        directory: Path,
        outside: Mapping[str, str],
        jar_directory: Path | None = None,
        address: str = LOOPBACK,
        ports: Mapping[str, int] | None = None,
        kafka_properties: str = "",
        kafka_users: Sequence[str] = (),
    ) -> None:
        self.directory = directory.resolve()
        self._address, self._ports = address, ports or {}
        self._kafka_properties = _KAFKA_PROPERTIES + kafka_properties
        self._kafka_users = [option for user in kafka_users for option in ("--add-scram", user)]
        self._jars = jar_directory or self.directory / jars.LOCK.stem
        self._outside = outside
        self.variables: dict[str, str] = {}
        self.servers: dict[str, ServerProcess] = {}

    def __enter__(self) -> "Stack":
        check_platform()
        launch = {"DATABASE_URL": self._postgresql, "REDIS_URL": self._valkey, "KAFKA_BROKERS": self._kafka}
        try:
            self._prepare()
            for variable, start in launch.items():
                self.variables[variable] = self._outside.get(variable) or start()
            for server in self.servers.values():
                server.wait()
            if "postgresql" in self.servers:
                _create_database(self.variables["DATABASE_URL"])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop all servers at the same time; data stays."""
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(ServerProcess.stop, list(self.servers.values())))

    def _prepare(self) -> None:
        try:
            for name in ("data", "logs"):
                (self.directory / name).mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.directory).free
        except OSError as error:
            raise LocalStackError(f"cannot write to {self.directory}: {error.strerror}") from None
        if free < _NEEDED_BYTES:
            raise LocalStackError(
                f"{self.directory} has {free // 10**6} MB free; {_NEEDED_BYTES // 10**6} MB are needed"
            )

    def _launch(
        self, name: str, command: list[str], ready: Callable[[], bool], stop_signal: int = signal.SIGTERM
    ) -> None:
        log = self.directory / "logs" / f"{name}.log"
        self.servers[name] = ServerProcess(name, command, log, ready, stop_signal)
        self.servers[name].start()

    def _kafka(self) -> str:
        port, controller = self._port("kafka"), free_port()
        data = self.directory / "data" / "kafka"
        properties = self.directory / "data" / "kafka.properties"
        places = {"address": self._address, "port": port, "controller": controller, "data": data}
        properties.write_text(self._kafka_properties.format(**places))
        command = kafka_command(self._jars, heap_mb=384)
        if not (data / "meta.properties").exists():
            form = ["kafka.tools.StorageTool", "format", "--standalone", "--cluster-id", cluster_id()]
            _once("Kafka", [*command, *form, *self._kafka_users, "--config", str(properties)])
        self._launch("kafka", [*command, "kafka.Kafka", str(properties)], lambda: _kafka_ready(self._address, port))
        return f"{self._address}:{port}"

    def _postgresql(self) -> str:
        binaries = postgresql()
        data = self.directory / "data" / "postgresql"
        user = not_as_root()
        if not (data / "PG_VERSION").exists():
            data.mkdir(parents=True, exist_ok=True)
            options = ["--username=backend", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
            _once("PostgreSQL", [*user, f"{binaries}/initdb", f"--pgdata={data}", *options])
            if self._address != LOOPBACK:
                with (data / "pg_hba.conf").open("a") as rules:
                    rules.write("host all all samenet trust\n")
        _end_leftover(data, [*user, f"{binaries}/pg_ctl"])
        port = self._port("postgresql")
        options = ["-D", str(data), "-h", self._address, "-p", str(port), "-k", "", "-c", "max_wal_size=2GB"]
        url = f"postgresql://backend@{self._address}:{port}/backend"
        ready = [f"{binaries}/pg_isready", "-q", "-h", self._address, "-p", str(port)]
        # SIGINT is PostgreSQL's fast shutdown: it waits for no client.
        self._launch(
            "postgresql",
            [*user, f"{binaries}/postgres", *options],
            lambda: subprocess.run(ready).returncode == 0,
            signal.SIGINT,
        )
        return url

    def _valkey(self) -> str:
        port = self._port("valkey")
        options = [
            "--bind",
            self._address,
            "--port",
            str(port),
            "--protected-mode",
            "no",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        command = [str(valkey()), *options, "--dir", str(self.directory / "data")]
        self._launch("valkey", command, lambda: accepts(self._address, port))
        return f"redis://{self._address}:{port}/0"

    def _port(self, name: str) -> int:
        return self._ports.get(name) or free_port()


# A killed broker can only register again when its last session has ended, by default after 9 s.
_KAFKA_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{address}:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{address}:{port}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
message.max.bytes=10485760
log.cleaner.backoff.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=1000
"""


def check_platform() -> None:
    """Raises LocalStackError on a platform without binaries of the servers."""
    system, machine = platform.system(), platform.machine().lower()
    if system not in ("Linux", "Darwin") or machine not in ("x86_64", "amd64", "aarch64", "arm64"):
        raise LocalStackError(
            f"the local stack runs on Linux and macOS, on x86-64 and ARM64, not on {system} {machine}"
        )


def not_as_root() -> list[str]:
    """A prefix that makes root look like nobody to PostgreSQL, which refuses root; root still owns the files."""
    if os.geteuid() != 0:
        return []
    prefix = ["unshare", "--user", "--map-user=65534"]
    if shutil.which(prefix[0]) is None or subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        raise LocalStackError("PostgreSQL does not run as root here; run as another user, or set DATABASE_URL")
    return prefix


def _once(name: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise LocalStackError(f"{name} could not create its data directory: {lines[-1]}")


def _end_leftover(data: Path, pg_ctl: list[str]) -> None:
    """Stop our PostgreSQL if it outlived a killed run."""
    if (data / "postmaster.pid").exists():
        subprocess.run([*pg_ctl, "stop", "-D", str(data), "-m", "fast", "-w"], capture_output=True)


def _create_database(url: str) -> None:
    import psycopg2

    connection = psycopg2.connect(url.rsplit("/", 1)[0] + "/postgres")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor, contextlib.suppress(psycopg2.errors.DuplicateDatabase):
            cursor.execute("CREATE DATABASE backend")
    finally:
        connection.close()


def _kafka_ready(address: str, port: int) -> bool:
    if not accepts(address, port):
        return False
    from bridge.kafka import clients  # only where Kafka runs here

    return clients.responds(f"{address}:{port}")


def kafka_command(jar_directory: Path, heap_mb: int) -> list[str]:
    """Java with Kafka's classes, which are fetched if they are missing; it logs warnings and errors."""
    options = ["-Xms64m", f"-Xmx{heap_mb}m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    return [str(java()), *options, "-cp", f"{jars.ensure(jar_directory)}/*"]


def cluster_id() -> str:
    """16 random bytes as Kafka writes them; never with a leading dash, which its tool would read as a flag."""
    while (made := secrets.token_urlsafe(16)).startswith("-"):
        pass
    return made
