"""One call of a user's function: within its time limit, and with what went wrong as a value."""

import functools
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from celery.utils.time import get_exponential_backoff_interval

from tasks.declaration import Message, Options, Reject, Retry, Task
from tasks.observability import events, traces
from tasks.store.chunks import Obligation
from tasks.store.connection import database
from tasks.store.runs import Failure, Run
from tasks.worker.time_limits import ByAlarm, TimeLimit

_LONGEST_ERROR, _LONGEST_TRACEBACK = 1_000, 10_000  # characters that are kept
_limit: TimeLimit


def prepare_process(limit: TimeLimit | None = None) -> None:
    """Set how this process limits the time of a call; by default for one that calls functions in its main thread."""
    global _limit
    _limit = limit or ByAlarm()


def _forget(_: Any) -> None:
    pass


def call(task: Task, messages: Sequence[Message], keep: Callable[[Any], None] = _forget) -> Exception | None:
    """Call the function with a message, or with all of them if it takes batches; returns the exception it raised.

    `keep` gets what the function returns. SystemExit and its like end the process, but in a thread they are a failure
    as others.
    """
    first = messages[0]
    events.say_of_all_lines({"task": task.name, "message_id": first.id, "attempt": first.attempt})
    try:
        with traces.running(task.name, messages):
            _limit.begin(task.name, task.options.time_limit)
            try:
                keep(task.function(first if task.options.batch is None else messages))
            finally:
                _limit.end()
    except Exception as error:
        return error
    except BaseException as error:
        if threading.current_thread() is threading.main_thread():
            raise
        return RuntimeError(f"it raised {type(error).__name__}").with_traceback(error.__traceback__)
    finally:
        events.say_of_all_lines({})
    return None


def to_message(obligation: Obligation, model: type | None, attempt: int) -> Message:
    """The message as the function receives it. Raises Reject if the payload does not fit `model`."""
    return Message(
        id=str(obligation.id),
        type=obligation.type,
        key=obligation.key,
        topic=obligation.topic,
        partition=obligation.partition,
        offset=obligation.offset,
        time=obligation.produced_at,
        headers={} if obligation.headers is None else msgspec.json.decode(obligation.headers),
        payload=_payload(obligation.payload, model),
        attempt=attempt,
    )


def called(run: Run, model: type | None) -> Message:
    """What the function of a call receives. Raises Reject if the payload does not fit `model`."""
    return Message(
        id=str(run.message_id),
        time=run.stored_at,
        headers={} if run.headers is None else msgspec.json.decode(run.headers),
        payload=_payload(run.payload, model),
        attempt=run.attempts + 1,
    )


def _payload(text: str | None, model: type | None) -> Any:
    if text is None and model is None:
        return None
    try:
        return _decoder(model)(text or "null")
    except ValueError as error:  # of msgspec and of pydantic
        raise Reject(f"the payload does not fit: {error}") from error


@functools.cache
def _decoder(model: type | None) -> Callable[[str], Any]:
    if model is None:
        return msgspec.json.Decoder().decode
    pydantic: Callable[[str], Any] | None = getattr(model, "model_validate_json", None)
    return pydantic or msgspec.json.Decoder(model).decode


def failure(error: Exception, options: Options, attempt: int) -> Failure:
    """What becomes of a run whose `attempt`-th attempt raised `error`."""
    text = f"{type(error).__name__}: {error}"[:_LONGEST_ERROR]
    frames = error.__traceback__ and error.__traceback__.tb_next  # without ours
    lines = "".join(traceback.format_exception(type(error), error, frames))[-_LONGEST_TRACEBACK:]
    return Failure(_storable(text), _storable(lines), _retry_in(error, options, attempt))


def _retry_in(error: Exception, options: Options, attempt: int) -> float | None:
    """Seconds until the next attempt; None if there is none. Celery's rules, and its formula of the back-off."""
    if isinstance(error, Reject) or not isinstance(error, (Retry, *options.autoretry_for)):
        return None
    if options.max_retries is not None and attempt > options.max_retries:
        return None
    if isinstance(error, Retry) and error.after is not None:
        return max(0.0, error.after)
    if not options.retry_backoff:
        return 0.0
    factor, maximum = int(max(1, options.retry_backoff)), int(options.retry_backoff_max)
    retries = min(attempt - 1, 60)  # far beyond the longest delay
    return float(get_exponential_backoff_interval(factor, retries, maximum, options.retry_jitter))


def after_call(error: Exception | None) -> Exception | None:
    """The exception of a function without `transaction=True`, also if it has left a transaction open."""
    if not database.transaction_depth() and not _is_in_transaction():
        return error
    while database.transaction_depth():
        database.pop_transaction()
    database.execute_sql("ROLLBACK")
    return error or RuntimeError("it left a transaction open, which was rolled back")


def _is_in_transaction() -> bool:
    connection: Any = database.connection()
    return bool(connection.get_transaction_status())


def _storable(text: str) -> str:
    """Text without what PostgreSQL does not store: NUL and surrogates."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
