"""Retries a single run that failed before, when it is due."""

from tasks.declaration import Reject, Task
from tasks.store import runs
from tasks.store.chunks import Obligation
from tasks.store.runs import Failure, Run
from tasks.worker import attempt
from tasks.worker.lending import Ended, Lent
from tasks.worker.outcomes import Outcomes

KILLS = 3  # processes that ended while they ran a message, until that is taken for the cause


def run(task: Task, owner: str, token: str, outcomes: Outcomes) -> bool:
    """Retry the run of a task that is due for the longest time; False if none is.

    Raises LeaseLost, and the errors in `connection.TRANSIENT`.
    """
    claimed = runs.claim(task.name, owner, token)
    if claimed is None:
        return False
    obligation = runs.message(claimed)
    if claimed.kills >= KILLS or obligation is None:
        reason = "its message was deleted" if obligation is None else f"it ended its process {KILLS} times"
        _finish(task, token, claimed, outcomes, Failure(reason, "", None))
    elif task.options.transaction:
        _in_transaction(task, token, claimed, outcomes, obligation)
    else:
        error = attempt.after_call(_call(task, claimed, obligation))
        _finish(task, token, claimed, outcomes, _failure(task, claimed, error))
    return True


def _call(task: Task, claimed: Run, obligation: Obligation) -> Exception | None:
    try:
        message = attempt.to_message(obligation, task.options.model, claimed.attempts + 1)
    except Reject as error:
        return error
    return attempt.call(task, [message])


def _in_transaction(task: Task, token: str, claimed: Run, outcomes: Outcomes, obligation: Obligation) -> None:
    lent = Lent(task.options.time_limit)
    try:
        with lent.transaction():
            runs.lock(claimed, token)
            with lent.to_a_function(savepoint=True):
                error = lent.after_call(_call(task, claimed, obligation))
            _finish(task, token, claimed, outcomes, _failure(task, claimed, error))
    except Ended as ended:
        _finish(task, token, claimed, outcomes, _failure(task, claimed, ended))


def _failure(task: Task, claimed: Run, error: Exception | None) -> Failure | None:
    return None if error is None else attempt.failure(error, task.options, claimed.attempts + 1)


def _finish(task: Task, token: str, claimed: Run, outcomes: Outcomes, failure: Failure | None) -> None:
    runs.finish(claimed, token, failure)
    outcomes.count(task.name, 1, [] if failure is None else [failure])
