"""Limits the time of a call of a user's function, in a process that runs one at a time, or many in threads."""

import os
import signal
import threading
import time
from typing import Any, NoReturn, Protocol

from tasks.declaration import TimeLimitExceeded
from tasks.errors import EXIT_FAILED
from tasks.observability import events

GRACE_SECONDS = 15  # beyond its time limit, until a function that does not end is taken to hang


class TimeLimit(Protocol):
    """Surrounds each call of a function."""

    def begin(self, task: str, seconds: float) -> None:
        """Before the call."""

    def end(self) -> None:
        """After the call, however it ended."""


class ByAlarm:
    """Raises TimeLimitExceeded in the main thread, where Celery's prefork processes call functions."""

    def __init__(self) -> None:
        signal.signal(signal.SIGALRM, _exceeded)

    def begin(self, task: str, seconds: float) -> None:
        """Set the alarm."""
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def end(self) -> None:
        """Clear the alarm."""
        signal.setitimer(signal.ITIMER_REAL, 0)


class OfThreads:
    """Ends the process when a function has exceeded its limit for GRACE_SECONDS.

    Nothing can interrupt a thread that waits, and one that waits for ever would be lost without anybody noticing.
    """

    def __init__(self) -> None:
        self._running: dict[int, tuple[str, float]] = {}  # by thread: the task, and when it is taken to hang

    def begin(self, task: str, seconds: float) -> None:
        """Note when the call of this thread has to end."""
        self._running[threading.get_ident()] = task, time.monotonic() + seconds + GRACE_SECONDS

    def end(self) -> None:
        """The call of this thread has ended."""
        del self._running[threading.get_ident()]

    def check(self) -> None:
        """End the process if a function hangs."""
        now = time.monotonic()
        for task, end in list(self._running.values()):
            if now > end:
                events.emit("run.stuck", task=task)
                os._exit(EXIT_FAILED)  # a thread that hangs would outlive sys.exit


def _exceeded(*_: Any) -> NoReturn:
    raise TimeLimitExceeded("it exceeded its time limit")
