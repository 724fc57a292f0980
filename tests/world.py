"""The verbs of integration and scenario tests: a database, topics and a consumer group of one test's own."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import psutil
import psycopg2
import requests
from confluent_kafka import Consumer, Producer, TopicPartition

from bootstrap import init
from bootstrap.stack import Stack, free_port
from tasks import database, settings
from tasks.settings import Settings
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent


class Program:
    """A real process of ours; its log lines are JSON, one fact each."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = Path(tempfile.mkstemp(prefix=f"{name}-", suffix=".log")[1])
        with self.log.open("ab") as log:  # supervisord opens it anew: appending, no line overwrites another
            command = [sys.executable, "-m", "bootstrap", *arguments]
            self.process = subprocess.Popen(command, env=dict(environment), stdout=log, stderr=log, cwd=ROOT)

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """The log's lines so far, of one event or all; what is no JSON is left out."""
        raw = [line for line in self.log.read_bytes().splitlines() if line.startswith(b"{") and line.endswith(b"}")]
        parsed: list[dict[str, Any]] = [orjson.loads(line) for line in raw]
        return [line for line in parsed if event in (None, line["event"])]

    def family(self) -> list[psutil.Process]:
        """The process and all it started."""
        try:
            return [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def child(self, part: str) -> psutil.Process:
        """The process in the family whose command line contains `part`."""
        return next(one for one in self.family() if part in " ".join(one.cmdline()))

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM; the exit code. Fails when it does not end in time or leaves a process behind."""
        family = self.family()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive, f"{self.name} left processes behind: {alive}"
        return code

    def end(self) -> None:
        """SIGKILL it and all it started."""
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)
        self.process.wait(10)


class World:
    """One test's part of the servers. `variables` are the settings of every process it starts."""

    def __init__(self, stack: Stack, topics: int = 1) -> None:
        name = f"t{uuid.uuid4().hex[:12]}"
        self.topics = [name if number == 0 else f"{name}-{number}" for number in range(topics)]
        self.topic = self.topics[0]
        self.stack = stack
        server = stack.variables["DATABASE_URL"].rsplit("/", 1)[0]
        self._database = name
        execute(f"{server}/backend", f"CREATE DATABASE {name}")
        self.port = free_port()
        self.programs: list[Program] = []
        self.variables = {
            **stack.variables,
            "DATABASE_URL": f"{server}/{name}",
            "KAFKA_TOPICS": ",".join(self.topics),
            "KAFKA_GROUP_ID": name,
            "KAFKA_PARTITIONS": "3",
            "ADDRESS": "127.0.0.1",
            "PORT": str(self.port),
            "LOG_FORMAT": "json",
            "APP_ENV": "test",
            "WORKERS": "2",
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self, **changed: str) -> Settings:
        """The settings of this world, for code that runs in the test itself."""
        return settings.load({}, {**self.variables, **{name.upper(): value for name, value in changed.items()}})

    def run(self, *arguments: str, **changed: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of ours to its end."""
        command = [sys.executable, "-m", "bootstrap", *arguments]
        return subprocess.run(
            command, env=self._environment(changed), capture_output=True, text=True, cwd=ROOT, timeout=90
        )

    def start(self, *arguments: str, **changed: str) -> Program:
        """Start a command of ours; it is stopped when the test ends."""
        program = Program(arguments[0], arguments, self._environment(changed))
        self.programs.append(program)
        return program

    def init(self) -> None:
        """What `init` does, without a process of its own, which takes a second or two before each of many tests."""
        init.run(self.settings(), {}, check=False)
        database.database.close_all()

    def serve(self, **changed: str) -> Program:
        """Start the API and wait until it answers."""
        program = self.start("serve", **changed)
        wait_until(lambda: _answers(f"{self.url}/health"), "the API answers")
        return program

    def consume(self, *arguments: str, **changed: str) -> Program:
        """Start the consumer pod and wait until it has its partitions."""
        program = self.start("consume", *arguments, **changed)
        wait_until(lambda: program.lines("partitions.assigned"), "the bridge has partitions")
        return program

    def produce(
        self,
        values: Sequence[bytes | None],
        topic: str | None = None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int = -1,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Put records into Kafka with confluent-kafka, another producer than ours; all are acknowledged.

        Some of `events` bring their id in the header `id`, as rows of an outbox do; the others have only their place.
        """
        failed: list[object] = []
        producer = Producer({"bootstrap.servers": self.variables["KAFKA_BROKERS"], "acks": "all", **(options or {})})
        for value in values:
            producer.produce(
                topic or self.topic,
                value,
                key,
                partition=partition,
                headers=list(headers) or _outbox_header(value),
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
            producer.poll(0)
        assert producer.flush(30) == 0
        assert not failed

    def post(self, **fields: Any) -> requests.Response:
        return requests.post(f"{self.url}/messages", json=fields, timeout=30)

    def get(self, message_id: str) -> Any:
        answer = requests.get(f"{self.url}/messages/{message_id}", timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return execute(self.variables["DATABASE_URL"], statement, *values)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Any]:
        """A session of a stranger's, with whatever it holds until the block ends."""
        connection = psycopg2.connect(self.variables["DATABASE_URL"])
        try:
            yield connection
        finally:
            connection.close()

    def count(self) -> int:
        """Messages and dead letters together."""
        return int(self.sql("SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM dead_letter)")[0][0])

    def wait_for(self, count: int, seconds: float = 60) -> None:
        """Wait until so many messages and dead letters are stored."""
        wait_until(lambda: self.count() >= count, f"{count} records are stored", seconds)
        assert self.count() == count

    def ids(self) -> set[str]:
        """The field `id` of what is stored, which tells `events` apart; of messages without that field their own id."""
        return {str(row[0]) for row in self.sql("SELECT coalesce(payload->>'id', id::text) FROM message")}

    def holds_exactly(self, made: Iterable[str]) -> None:
        """The promise: what Kafka acknowledged is stored, all of it, once, and nothing else is."""
        wanted = set(made)
        assert self.ids() == wanted
        assert self.count() == len(wanted)

    def under_load(self, made: Mapping[str, bytes], times: int) -> Iterator[int]:
        """Produce `made` in parts, and yield at a random moment while each is stored, or at once: how many so far.

        Where it is at once, what was started anew after the last moment may be starting still.
        """
        seed = random.randrange(10**6)
        chance = random.Random(seed)
        print(f"seed {seed}")
        values, size = list(made.values()), len(made) // times
        for number in range(times):
            moment = self.count() + chance.choice((0, chance.randrange(size)))
            self.produce(values[number * size : (number + 1) * size])
            wait_until(partial(self._holds, moment), "the load is under way", 60)
            yield (number + 1) * size

    def _holds(self, least: int) -> bool:
        return self.count() >= least

    def all_committed(self) -> None:
        """Wait until the group has committed all of the topic, so that nothing is read again."""
        group = {"bootstrap.servers": self.variables["KAFKA_BROKERS"], "group.id": self.variables["KAFKA_GROUP_ID"]}
        consumer = Consumer(group)
        numbers = range(int(self.variables["KAFKA_PARTITIONS"]))
        ends = {n: consumer.get_watermark_offsets(TopicPartition(self.topic, n), timeout=10)[1] for n in numbers}

        def committed() -> bool:
            found = consumer.committed([TopicPartition(self.topic, n) for n in numbers], timeout=10)
            return all(max(part.offset, 0) == ends[part.partition] for part in found)

        wait_until(committed, f"all is committed, which ends at {ends}", 10)
        consumer.close()

    def stored_within(self, seconds: float, what: str) -> None:
        """Wait until more is stored than now, and print how long that took."""
        before, began = self.count(), time.monotonic()
        wait_until(lambda: self.count() > before, f"records are stored again after {what}", seconds)
        print(f"stored again {time.monotonic() - began:.1f} s after {what}")

    def admin(self, statement: str) -> None:
        """SQL on the server's own database, about this world's."""
        server = self.variables["DATABASE_URL"].rsplit("/", 1)[0]
        execute(f"{server}/postgres", statement.format(database=self._database))

    def close(self) -> None:
        """End what the test left running, at once: that it also ends in order is for the tests that stop it."""
        for program in self.programs:
            program.end()
        # After a crash PostgreSQL reads every file of every database; a suite makes two hundred of them.
        with contextlib.suppress(psycopg2.OperationalError):
            self.admin("DROP DATABASE {database} WITH (FORCE)")

    def show_logs(self) -> None:
        """Print the last lines of all programs."""
        for program in self.programs:
            print(f"--- {program.log}", *program.log.read_text(errors="replace").splitlines()[-25:], sep="\n")

    def _environment(self, changed: Mapping[str, str]) -> dict[str, str]:
        merged = {**settings.child_environment({}), **self.variables}
        for name, value in changed.items():
            merged[name.upper()] = value
        return {name: value for name, value in merged.items() if value != ABSENT}


NEVER = "600"  # seconds to a batch's deadline, where a test must not be saved by it
ABSENT = "(absent)"  # takes a variable away from a process
_FROM_AN_OUTBOX = re.compile(rb'\{"id":"([0-9a-f-]{36})","type":"type-[024]"')


def events(count: int) -> dict[str, bytes]:
    """`count` records that are all different, by their ids."""
    made = {}
    for number in range(count):
        message_id = str(uuid.uuid4())
        made[message_id] = orjson.dumps({"id": message_id, "type": f"type-{number % 5}", "number": number})
    return made


def _outbox_header(value: bytes | None) -> list[tuple[str, bytes]]:
    found = _FROM_AN_OUTBOX.match(value or b"")
    return [("id", found[1])] if found else []


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.ConnectionError:
        return False


def execute(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of one statement, in a session of its own."""
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def signalled(process: psutil.Process, number: int) -> None:
    """Send a signal to one process, ours, by its pid."""
    os.kill(process.pid, number)
