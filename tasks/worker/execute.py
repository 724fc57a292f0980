"""The Celery task that runs a users' task for what it is obliged to, and what its parent does when a process ends."""

import contextlib
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any, NamedTuple

import redis
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery import Task as CeleryTask

from tasks.declaration import Task
from tasks.observability import events
from tasks.store.chunks import LeaseLost
from tasks.store.connection import TRANSIENT, checked_out, explain
from tasks.worker.execution import Execution
from tasks.worker.outcomes import Outcomes
from tasks.worker.request import SettledRequest, cause
from tasks.worker.wakes import Wakes

NAME = "tasks.execute"
_ENDS = (WorkerLostError, SystemExit, KeyboardInterrupt)  # of a process; the last two by its function


class Claimed(NamedTuple):
    """What the process of a Celery task had claimed when that ended; `ended`: the process ended, too."""

    token: str
    ended: bool


class ExecuteRequest(SettledRequest):
    """Runs in the parent of the processes, which frees what a Celery task has claimed and could not release."""

    def on_failure(self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Called for an exception of the Celery task, and when its process ended."""
        self.task.left.put(Claimed(self.id, ended=isinstance(cause(exc_info), _ENDS)))
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """Called when a function did not react to its time limit; its process is then killed."""
        if not soft:
            self.task.left.put(Claimed(self.id, ended=True))
        return super().on_timeout(soft, timeout)


class Execute(CeleryTask):  # type: ignore[misc]
    """Runs one users' task for about a second. Any number of them may be queued: each runs what is open then."""

    name = NAME
    Request = ExecuteRequest
    throws = (LeaseLost, *TRANSIENT)
    # Set by tasks.worker.task_app.create_app:
    tasks: Mapping[str, Task]
    owner: str
    wakes: Wakes
    outcomes: Outcomes
    left: "SimpleQueue[Claimed]"

    def run(self, name: str) -> None:
        """Run what is open of the users' task with this name."""
        task = self.tasks.get(name)
        if task is None:
            return  # a pod with another version has queued it, and still runs it
        with checked_out():
            more = Execution(task, self.owner, self.request.id, self.outcomes).run()
        if more:
            with contextlib.suppress(redis.RedisError):  # the dispatcher finds it anyway
                self.wakes.send([name])

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo) -> None:
        """Called in the process that raised."""
        known = explain(exc) if isinstance(exc, TRANSIENT) else exc
        events.emit("execution.failed", task=args[0], reason=f"{type(exc).__name__}: {known}".splitlines()[0])
