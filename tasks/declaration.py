"""How users declare tasks of their own: the decorator, the message that a function receives, how it ends a run."""

import difflib
import inspect
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, overload

import msgspec

from tasks import calls
from tasks.errors import ConfigurationError


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A stored message, as a task's function receives it; or a call, which has no type, key or place in Kafka."""

    id: str  # a UUID; the same in every attempt, so it can be the idempotency key of other systems
    type: str | None = None
    key: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    time: datetime | None = None  # the record's timestamp, or None if it has none; of a call, when it was stored
    headers: Mapping[str, str] = {}
    payload: Any = None  # parsed JSON, or an instance of the task's `model`
    attempt: int = 1  # of this run; 2 for the first retry


class Retry(Exception):
    """Raised by a task's function to run again later; it counts as a retry."""

    def __init__(self, reason: str = "the task asked for a retry", after: float | None = None) -> None:
        """`after` is in seconds; without it the task's back-off decides."""
        super().__init__(reason)
        self.after = after


class Reject(Exception):
    """Raised by a task's function for a message that it can never handle: the run fails at once, without retries."""


class TimeLimitExceeded(Exception):
    """Raised inside a task's function when it exceeds its `time_limit`."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `task`. Those that Celery has too have its names and meanings."""

    on: str | tuple[str, ...] | None = None
    topic: str | None = None
    name: str | None = None
    batch: int | None = None
    transaction: bool = False
    model: type | None = None
    max_retries: int | None = 3
    retry_backoff: bool | float = True
    retry_backoff_max: float = 600
    retry_jitter: bool = True
    autoretry_for: tuple[type[Exception], ...] = (Exception,)
    time_limit: float = 300
    store_result: bool = False
    aliases: tuple[str, ...] = ()
    queue: str = "default"

    def faults(self) -> list[str]:
        """A sentence for each option that makes no sense."""
        rules = {
            "on must be a pattern of types such as order.*, or several": self.on is None
            or all(self.patterns() or [""]),
            "aliases must be a list of names": isinstance(self.aliases, tuple) and all(self.aliases),
            "queue must be a name without commas": bool(self.queue) and "," not in self.queue,
            "batch must be at least 1": self.batch is None or self.batch >= 1,
            "max_retries must be None or at least 0": self.max_retries is None or self.max_retries >= 0,
            "retry_backoff must not be negative": float(self.retry_backoff) >= 0,
            "time_limit must be more than 0 seconds": self.time_limit > 0,
        }
        return [fault for fault, holds in rules.items() if not holds]

    def patterns(self) -> tuple[str, ...] | None:
        """The patterns of types; None for any, also for messages without a type. Without `on` and `topic`: none."""
        if self.on is None:
            return () if self.topic is None else None
        return (self.on,) if isinstance(self.on, str) else self.on


@dataclass(frozen=True)
class Task:
    """A function with its options. Calling it calls the function, so that unit tests need no server."""

    name: str
    function: Callable[..., Any] = field(repr=False)
    options: Options

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function itself."""
        return self.function(*arguments, **named)

    def delay(self, payload: Any = None, **fields: Any) -> uuid.UUID:
        """Let the task run for this payload, or for these fields; see `apply_async`."""
        if fields and payload is not None:
            raise TypeError("delay takes a payload or its fields, not both")
        return self.apply_async(fields or payload)

    def apply_async(
        self,
        payload: Any = None,
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        task_id: str | uuid.UUID | None = None,
    ) -> uuid.UUID:
        """Let the task run for this payload, and return the id of the call: the `id` of the function's message.

        It is durable in Kafka then; but inside a task with `transaction=True` it is a part of that transaction.
        The payload must be JSON, or a dataclass, msgspec.Struct or pydantic model. `countdown` and `expires` are in
        seconds, `eta` is a time (`expires` may be one, too). A call with a `task_id` that was used before is not run.

        Raises TypeError for another payload, ValueError for other bad arguments, and a tasks.errors.BackendError if
        Kafka does not take the call, or if it is not known whether it did: then repeat it with the same `task_id`.
        """
        moments = calls.Moments.of(countdown, eta, expires)
        return calls.send(self.name, payload, task_id, moments)


_declared: dict[str, Task] = {}


@overload
def task(function: Callable[..., Any], /) -> Task: ...


@overload
def task(**options: Any) -> Callable[[Callable[..., Any]], Task]: ...


def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Task | Callable[[Callable[..., Any]], Task]:
    """Let a function run for each stored message whose type matches `on`, a pattern such as `order.*`, and when called.

    on: the pattern, or a tuple of patterns; `*` stands for any characters.
    topic: only messages of this topic; alone, all of them. Without `on` and `topic` it only runs when it is called,
        by `delay`, `apply_async` or POST /tasks/NAME.
    name: the task's name; by default module and function, as in Celery.
    batch: the function receives a sequence of up to this number of messages instead of one message.
    transaction: what the function writes through `tasks.database` is committed together with the end of its run, so
        it has its effect exactly once. Without it a run may be repeated after a crash.
    model: the payload is decoded into this dataclass, msgspec.Struct or pydantic model; a mismatch fails the run.
    max_retries: how often a failed run is retried; 3 by default, None for ever.
    retry_backoff: seconds before the first retry, doubled for each further one; True means 1, False no delay.
    retry_backoff_max: the longest delay, 600 s by default. retry_jitter: a random part of the delay, on by default.
    autoretry_for: the exceptions that are retried, by default every Exception; others fail the run at once.
    time_limit: the longest time of a run in seconds, 300 by default.
    aliases: names that the task had before, whose obligations and calls it takes over.
    queue: where it waits for a worker, so that slow tasks have workers of their own (TASK_QUEUES).
    store_result: what the function returns for a call is kept, as JSON of up to 100,000 bytes; not by default.

    Raises ConfigurationError for an unknown option, a bad value, an asynchronous function, or a name that is taken.
    """

    def declare(function: Callable[..., Any]) -> Task:
        name = options.get("name") or f"{function.__module__}.{function.__qualname__}"
        declared = Task(name, function, _options(name, options))
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"task {name}: asynchronous functions are not supported, because a process runs one message at a time;"
                " make it a plain function that calls asyncio.run"
            )
        if len(name) > calls.LONGEST_NAME:
            raise ConfigurationError(f"task {name[:50]}...: a name has at most {calls.LONGEST_NAME} characters")
        other = _declared.get(name)
        if other is not None and _source(other.function) != _source(function):
            raise ConfigurationError(f"two tasks are named {name}: {_source(other.function)}, {_source(function)}")
        _declared[name] = declared
        return declared

    return declare if function is None else declare(function)


def declared() -> Sequence[Task]:
    """The tasks of all modules that were imported, by name."""
    return [_declared[name] for name in sorted(_declared)]


def _options(name: str, given: Mapping[str, Any]) -> Options:
    known = [option.name for option in fields(Options)]
    for option in given:
        if option not in known:
            near = difflib.get_close_matches(option, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise ConfigurationError(f"task {name}: there is no option {option}{hint}")
    values = dict(given)
    for option in ("on", "aliases"):
        if isinstance(values.get(option), list):
            values[option] = tuple(values[option])
    try:
        options = Options(**values)
        faults = options.faults()
    except TypeError as error:
        faults = [str(error)]
    if faults:
        raise ConfigurationError(f"task {name}: {'; '.join(faults)}")
    return options


def _source(function: Callable[..., Any]) -> str:
    code = function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
