"""Runs what is due of a task: runs that failed before, and calls."""

from collections.abc import Callable
from typing import Any

import msgspec

from tasks.declaration import Message, Reject, Task
from tasks.store import runs
from tasks.store.runs import Failure, Result, Run
from tasks.worker import attempt
from tasks.worker.lending import Ended, Lent
from tasks.worker.outcomes import Outcomes

KILLS = 3  # processes that ended while they ran a message, until that is taken for the cause
KILLER = Failure(f"it ended its process {KILLS} times", "", None)
_MOST_RUNS = 200  # claimed at once: what time does not suffice for is written once more, to release it
_LARGEST_RESULT = 100_000  # bytes of JSON


class DueRuns:
    """Runs of one task, claimed with one token."""

    def __init__(self, task: Task, owner: str, token: str, outcomes: Outcomes) -> None:
        self._task, self._owner, self._token, self._outcomes = task, owner, token, outcomes

    def run(self, most: int, is_over: Callable[[], bool]) -> bool:
        """Run up to `most` that are due, the oldest first, until `is_over`; False if none is due.

        Raises LeaseLost, and the errors in `connection.TRANSIENT`.
        """
        claimed = runs.claim(self._task.name, self._owner, self._token, min(most, _MOST_RUNS))
        for number, run in enumerate(claimed):
            if number and is_over():
                runs.release(self._token)
                break
            self._run(run)
        return bool(claimed)

    def _run(self, run: Run) -> None:
        if run.expired:
            runs.expire(run, self._token)
            self._outcomes.expired(self._task.name)
            return
        if run.kills >= KILLS:
            self._finish(run, KILLER)
            return
        try:
            message = self._message(run)
        except Reject as error:
            self._finish(run, attempt.failure(error, self._task.options, run.attempts + 1))
            return
        if message is None:
            self._finish(run, Failure("its message was deleted", "", None))
        elif self._task.options.transaction:
            self._in_transaction(run, message)
        else:
            returned: list[Any] = []
            raised = attempt.after_call(attempt.call(self._task, [message], returned.append))
            self._finish(run, self._failure(run, raised), returned)

    def _message(self, run: Run) -> Message | None:
        """What the function receives; None if it was deleted. Raises Reject."""
        if run.is_call:
            return attempt.called(run, self._task.options.model)
        obligation = runs.message(run)
        if obligation is None:
            return None
        return attempt.to_message(obligation, self._task.options.model, run.attempts + 1)

    def _in_transaction(self, run: Run, message: Message) -> None:
        lent, returned = Lent(self._task.options.time_limit), list[Any]()
        try:
            with lent.transaction():
                runs.lock(run, self._token)
                with lent.to_a_function(savepoint=True):
                    error = lent.after_call(attempt.call(self._task, [message], returned.append))
                self._finish(run, self._failure(run, error), returned)
        except Ended as ended:
            self._finish(run, self._failure(run, ended))

    def _failure(self, run: Run, error: Exception | None) -> Failure | None:
        return None if error is None else attempt.failure(error, self._task.options, run.attempts + 1)

    def _finish(self, run: Run, failure: Failure | None, returned: list[Any] | None = None) -> None:
        result = Result(None)
        if returned and run.is_call and self._task.options.store_result:
            result = _kept(returned[0])
        runs.finish(run, self._token, failure, result)
        self._outcomes.count(self._task.name, 1, [] if failure is None else [failure])


def _kept(returned: Any) -> Result:
    try:
        made = msgspec.json.encode(returned)
    except (TypeError, ValueError, RecursionError) as error:
        return Result(None, f"the result is not kept: {error}")
    if len(made) > _LARGEST_RESULT:
        return Result(None, f"the result is not kept: it has {len(made)} bytes, and at most {_LARGEST_RESULT} are kept")
    return Result(made.decode())
