"""A pytest plugin for tests of users' tasks: runs a task on a message in memory, or end to end on a backend of its own.

It is on with `pytest_plugins = ["tasks.testing"]` in the conftest.py at the root of a project. Nothing else imports it.
PYTEST_DONT_REWRITE: it has no assertions, and may be imported before pytest loads it.
"""

import contextlib
import itertools
import re
import signal
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, overload

import pytest

from tasks.calls import as_json
from tasks.declaration import Message, Options, Reject, Task
from tasks.message import read_body
from tasks.store import connection
from tasks.store.chunks import Obligation
from tasks.store.connection import database
from tasks.testing_backend import Backend, Outcome, Place, started
from tasks.worker import attempt

__all__ = ["Backend", "Outcome", "Place", "backend", "backend_settings", "message", "run_task"]

_offsets = itertools.count()


def message(payload: Any = None, **fields: Any) -> Message:
    """A message with this payload. Any other field of Message may be given; by default `type` is the payload's.

    `Message(id=..., payload=...)`, without a topic, is a call.
    """
    place = {"topic": "messages", "partition": 0, "offset": next(_offsets), "time": datetime.now(UTC)}
    return Message(payload=payload, **{"id": str(uuid.uuid4()), "type": read_body(payload).type, **place, **fields})


@overload
def run_task(task: Task, messages: Message) -> Outcome: ...


@overload
def run_task(task: Task, messages: Sequence[Message]) -> list[Outcome]: ...


def run_task(task: Task, messages: Message | Sequence[Message]) -> Outcome | list[Outcome]:
    """Run a task as a worker does, in this process and without a server; of several messages, the outcome of each.

    The payload becomes JSON and is decoded into `model`, as when it comes from Kafka; `batch` and `time_limit` hold. No
    transaction is begun. Raises ValueError for a message that the task does not want.
    """
    several = [messages] if isinstance(messages, Message) else list(messages)
    for one in several:
        _check_wanted(task, one)
    size = task.options.batch or 1
    with _time_limits():
        groups = [_run(task, several[first : first + size]) for first in range(0, len(several), size)]
    outcomes = list(itertools.chain.from_iterable(groups))
    return outcomes[0] if isinstance(messages, Message) else outcomes


@pytest.fixture(scope="session")
def backend_settings() -> dict[str, str]:
    """The settings of `backend`, as variables. Override it: `TASKS` must name your modules."""
    return {}


@pytest.fixture(scope="session")
def _started_backend(
    tmp_path_factory: pytest.TempPathFactory, backend_settings: Mapping[str, str]
) -> Iterator[Backend]:
    with started(tmp_path_factory.mktemp("backend"), backend_settings) as running:
        yield running


@pytest.fixture
def backend(_started_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """A backend on servers of its own, once for all tests; in the test `tasks.database` is its PostgreSQL.

    The test has their addresses as variables, so it can also call tasks, with `delay`.
    """
    for name, value in _started_backend.variables.items():
        monkeypatch.setenv(name, value)
    connection.configure(_started_backend.variables["DATABASE_URL"], "test", connections=4)
    yield _started_backend
    database.close()
    database.close_all()
    database.init(None)  # what runs in memory must not write here


@contextlib.contextmanager
def _time_limits() -> Iterator[None]:
    """Time limits of functions use the timer that limits of tests (pytest-timeout) may use, too."""
    handler, timer = signal.getsignal(signal.SIGALRM), signal.setitimer(signal.ITIMER_REAL, 0)
    attempt.prepare_process()
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _check_wanted(task: Task, one: Message) -> None:
    if one.topic is None:
        return  # a call
    patterns, topic = task.options.patterns(), task.options.topic
    expressions = [".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns or ()]
    matches = [one.type is not None and re.fullmatch(expression, one.type, re.DOTALL) for expression in expressions]
    if topic not in (None, one.topic) or (patterns is not None and not any(matches)):
        wanted = f"on={task.options.on!r}, topic={topic!r}"
        raise ValueError(f"{task.name} ({wanted}) does not run for type {one.type!r} of topic {one.topic!r}")


def _run(task: Task, group: Sequence[Message]) -> list[Outcome]:
    received: list[Message] = []
    rejected: dict[int, Exception] = {}
    for number, one in enumerate(group):
        try:
            received.append(attempt.to_message(_obligation(one), task.options.model, one.attempt))
        except Reject as error:
            rejected[number] = error
    raised = attempt.call(task, received) if received else None
    return [_outcome(rejected.get(number, raised), task.options, one) for number, one in enumerate(group)]


def _outcome(error: Exception | None, options: Options, one: Message) -> Outcome:
    if error is None:
        return Outcome("done", one.attempt)
    failure = attempt.failure(error, options, one.attempt)
    return Outcome(failure.state, one.attempt, failure.error, failure.retry_in, failure.traceback)


def _obligation(one: Message) -> Obligation:
    place = (one.topic, one.partition, one.offset, one.time, one.time)
    texts = (as_json(value).decode() for value in (one.headers, one.payload))
    return Obligation._make((0, one.id, one.type, one.key, *place, *texts))
