"""Counts how runs of the users' tasks end, and pauses a task of which too many fail."""

import threading
from collections.abc import Sequence

from tasks.observability import events, metrics
from tasks.share_limit import ShareLimit
from tasks.store import task_status
from tasks.store.runs import Failure


class Outcomes:
    """The outcomes of a process, of all its threads. One that is replaced starts to count again."""

    def __init__(self, limit_percent: int) -> None:
        self._percent = limit_percent
        self._limit: ShareLimit[str] = ShareLimit(limit_percent)
        self._exceeded: set[str] = set()
        self._lock = threading.Lock()

    def count(self, task: str, ran: int, failures: Sequence[Failure]) -> None:
        """Count runs, and log those that failed."""
        metrics.RUNS.add(ran - len(failures), task, "done")
        for failure in failures:
            metrics.RUNS.add(1, task, failure.state)
            events.emit("run.failed" if failure.retry_in is None else "run.retrying", task=task, reason=failure.error)
        with self._lock:
            if self._limit.add(task, ran, len(failures)):
                self._exceeded.add(task)

    def expired(self, task: str) -> None:
        """Count and log a call that was not run in time."""
        metrics.RUNS.add(1, task, "expired")
        events.emit("run.expired", task=task)

    def pause(self, task: str) -> bool:
        """Pause the task if it exceeds the limit; returns whether it does. Raises peewee.DatabaseError."""
        with self._lock:
            if task not in self._exceeded:
                return False
            reason = f"{self._limit.share(task):.0%} of its recent runs failed"
        if task_status.pause(task, reason, self._percent):
            events.emit("task.paused", task=task, reason=reason, limit_percent=self._percent)
        with self._lock:
            self._exceeded.discard(task)
            self._limit.forget(task)
        return True
