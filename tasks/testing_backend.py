"""The backend on which tests of users' tasks run end to end: `python -m bootstrap local`, in a directory of its own."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Producer

from tasks.calls import as_json
from tasks.config.environment import child_environment
from tasks.store.connection import database

_START_SECONDS, _STOP_SECONDS, _REQUEST_SECONDS, _LOOK_SECONDS = 180, 60, 30, 0.05
_LOG_LINES = 30
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# It must not use the servers, ports and keys that the environment names: they may be those of production.
_NOT_INHERITED = ("DATABASE_URL", "KAFKA_BROKERS", "REDIS_URL", "ADDRESS", "API_KEYS", "METRICS_PORT")
_OPEN = ("waiting", "retrying")
_RUNS = """
    SELECT task.name, CASE WHEN EXISTS (
        SELECT FROM chunk WHERE chunk.task = task.id AND chunk.stored_at = message.stored_at
            AND chunk.topic = message.topic AND chunk."partition" = message."partition"
            AND message."offset" >= first_offset AND message."offset" < next_offset
    ) THEN 'waiting' ELSE coalesce(run.state, 'done') END, run.attempts, run.error, run.traceback
    FROM message
        LEFT JOIN task ON retired_at IS NULL AND (task.topic IS NULL OR task.topic = message.topic)
            AND (patterns IS NULL OR message.type LIKE ANY (patterns))
        LEFT JOIN run ON run.task = task.name AND run.message_id = message.id AND run.topic = message.topic
    WHERE message.topic = %(topic)s AND message."partition" = %(partition)s AND message."offset" = %(offset)s
    ORDER BY task.name
"""
_CALL = """
    SELECT task, state, attempts, error, traceback FROM run WHERE message_id = %(id)s AND topic IS NULL
"""
_DEAD_LETTER = """
    SELECT reason, detail FROM dead_letter
    WHERE topic = %(topic)s AND "partition" = %(partition)s AND "offset" = %(offset)s
"""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `state` is done, retrying or failed; or expired, for a call."""

    state: str
    attempt: int | None = None  # None: nothing is kept of a message's run that is done
    error: str = ""  # type and text of the exception
    retry_in: float | None = None  # seconds until the next attempt; in memory only
    traceback: str = field(default="", repr=False)


class Place(NamedTuple):
    """Where Kafka has a published message."""

    topic: str
    partition: int
    offset: int


class Backend:
    """A running backend with the users' tasks. `variables` are the addresses of its servers, as settings."""

    def __init__(self, url: str, variables: Mapping[str, str], topic: str, output: Path) -> None:
        self.url, self.variables, self._topic, self._output = url, variables, topic, output
        self._producer = Producer(
            {"bootstrap.servers": variables["KAFKA_BROKERS"], "acks": "all", "linger.ms": 0, "log_level": 0}
        )

    def publish(self, payload: Any, topic: str | None = None) -> Place:
        """Publish a message with POST /messages; Kafka has it then. Raises AssertionError if the API refuses it."""
        query = "" if topic is None else f"?{urllib.parse.urlencode({'topic': topic})}"
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/messages{query}", as_json(payload), headers)
        try:
            with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as response:
                accepted = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"POST /messages: {error.code} {error.read().decode()}") from error
        return Place(accepted["topic"], accepted["partition"], accepted["offset"])

    def produce(
        self,
        payload: Any,
        topic: str | None = None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> Place:
        """Produce a record to Kafka, as any producer does: bytes as they are, everything else as JSON."""
        value = payload if isinstance(payload, bytes) else as_json(payload)
        delivered: list[tuple[Any, Any]] = []
        self._producer.produce(
            topic or self._topic,
            value,
            key,
            headers=list(headers),
            on_delivery=lambda *report: delivered.append(report),
        )
        self._producer.flush(_REQUEST_SECONDS)
        if not delivered or delivered[0][0] is not None:
            raise AssertionError(f"Kafka does not take the record: {delivered[0][0] if delivered else 'no response'}")
        [(_, record)] = delivered
        return Place(record.topic(), record.partition(), record.offset())

    def outcomes(self, published: Place | uuid.UUID, seconds: float = 60) -> dict[str, Outcome]:
        """Wait until all runs of a message have ended, retries included; how, by the name of the task.

        `published` is where the message is, or the id of a call. Prints the traceback of a failed run, which pytest
        shows if the test fails. Raises AssertionError if the message is a dead letter, or if it is not stored or a run
        has not ended after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            rows = _runs(published)
            if rows and not any(row[1] in _OPEN for row in rows):
                break
            if time.monotonic() > deadline:
                print(*_tail(self._output), sep="\n")
                states = [f"{name} is {state}, {error or 'without an error'}" for name, state, _, error, _ in rows]
                raise AssertionError(f"{published}, after {seconds} s: {'; '.join(states) or 'it is not stored'}")
            time.sleep(_LOOK_SECONDS)
        print(*(row[4] for row in rows if row[4]), sep="\n", end="")
        return {
            name: Outcome(state, attempts, error or "", None, trace or "")
            for name, state, attempts, error, trace in rows
            if name is not None
        }


@contextlib.contextmanager
def started(directory: Path, changed: Mapping[str, str]) -> Iterator[Backend]:
    """A backend with settings of its own, as variables. Raises ValueError without TASKS, RuntimeError if it fails."""
    own = child_environment({})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in own.items() if name not in _NOT_INHERITED}
    # A test that fails on purpose must not pause its task for the next one.
    environment |= {"TASK_FAILURE_LIMIT_PERCENT": "100", **changed}
    environment |= {
        "LOCAL_DIR": str(directory),
        "PORT": str(port),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    if not environment.get("TASKS"):
        raise ValueError("set TASKS, or let the fixture backend_settings return it, such as {'TASKS': 'shop.tasks'}")
    output = directory / "output"
    with _kafka_is_kept(directory, Path(own.get("LOCAL_DIR") or ".local")), output.open("wb") as log:
        command = [sys.executable, "-m", "bootstrap", "local"]
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True, preexec_fn=_end_with_parent
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(process, url, output)
            variables = json.loads((directory / "variables.json").read_text())
            yield Backend(url, variables, environment.get("KAFKA_TOPICS", "messages").split(",")[0].strip(), output)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _runs(published: Place | uuid.UUID) -> list[tuple[Any, ...]]:
    """Task, state, attempts, error and traceback of each run; a row without a task for a message that none wants."""
    if isinstance(published, uuid.UUID):
        return list(database.execute_sql(_CALL, {"id": published}).fetchall())
    rows = database.execute_sql(_RUNS, published._asdict()).fetchall()
    letter = None if rows else database.execute_sql(_DEAD_LETTER, published._asdict()).fetchone()
    if letter is not None:
        raise AssertionError(f"{published} is a dead letter: {': '.join(letter)}")
    return list(rows)


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, output: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health/ready", timeout=_REQUEST_SECONDS):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("\n".join(["the backend did not start:", *_tail(output)]))
        time.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def _kafka_is_kept(directory: Path, local: Path) -> Iterator[None]:
    """Use the Kafka that `make run` or an earlier test has fetched, and leave it there for the next."""
    for fetched in local.glob("kafka-*"):
        (directory / fetched.name).symlink_to(fetched.resolve())
    try:
        yield
    finally:
        for fetched in directory.glob("kafka-*"):
            if not fetched.is_symlink() and not (local / fetched.name).exists():
                local.mkdir(parents=True, exist_ok=True)
                shutil.move(fetched, local / fetched.name)


def _end_with_parent() -> None:
    """Runs in the child: on Linux it gets SIGTERM when the tests are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _tail(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
