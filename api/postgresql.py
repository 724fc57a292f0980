"""The connections of a process to PostgreSQL, divided by purpose, with limits in number and time.

Each purpose has its own connections, so that waiting readers block no writers, operators or probes.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from math import inf
from typing import TypeVar

from api import deadlines
from api.deadlines import Late, TooSlow
from api.limits import Slots
from tasks.store.connection import CANCELED, TRANSIENT, database, limited, sqlstate

_FIRST_ANSWER_SECONDS = 3.0  # for a connection that responds
_PATIENCE_SECONDS = 2.0  # until another request returns a connection
_GRACE_SECONDS = 1.0  # PostgreSQL cancels a query at its limit; the connection is closed only if it does not
_PAUSE_SECONDS = 1.0  # after a timeout, without another attempt
_BUSY = "All connections for such requests are in use. Try again, with an increasing delay."
T = TypeVar("T")
_connecting = threading.Lock()  # the pool's own lock is held while a connection is made, and has no timeout


class Connections:
    """The connections of this process for one purpose."""

    def __init__(
        self, count: int, seconds: int, patience_seconds: float = _PATIENCE_SECONDS, all_seconds: float = inf
    ) -> None:
        """`seconds` limits a query, `patience_seconds` the wait for a connection, `all_seconds` both together."""
        self.count = count
        self._seconds = seconds
        self._all_seconds = all_seconds
        self._slots = Slots(count, patience_seconds, _BUSY)
        self._threads = ThreadPoolExecutor(count)  # threads start when they are needed
        self._lock = threading.Lock()
        self._silent_until: float | None = None

    @contextmanager
    def transaction(self, seconds: int | None = None) -> Iterator[None]:
        """A transaction whose statements are canceled after `seconds`, by default those of the purpose.

        Raises Problem when no connection is free, Late, TooSlow, others of TRANSIENT, and what the statements raise.
        """
        most = seconds or self._seconds
        with self._connected(most) as end:
            deadlines.begin(min(end, time.monotonic() + most + _GRACE_SECONDS))
            with limited(most):
                yield

    def ask(self, question: Callable[[], T]) -> T:
        """The result of `question` in a transaction of another thread, because even the pool's locks can hang.

        Raises Late if that takes longer than `all_seconds`, and what `transaction` raises.
        """
        asked = self._threads.submit(copy_context().run, self._asked, question)
        try:
            return asked.result(self._all_seconds)
        except TimeoutError:
            raise Late(f"PostgreSQL did not respond within {self._all_seconds} s") from None
        finally:
            asked.cancel()

    def _asked(self, question: Callable[[], T]) -> T:
        with self.transaction():
            return question()

    @contextmanager
    def statements(self) -> Iterator[None]:
        """A connection for the caller's own transactions, with 10 s for each statement. Raises the same errors."""
        with self._connected(self._seconds):
            deadlines.begin(None)
            yield

    @contextmanager
    def _connected(self, seconds: int) -> Iterator[float]:
        end = time.monotonic() + self._all_seconds
        with self._slots:
            deadlines.forget()
            try:
                self._connect(min(end, time.monotonic() + _FIRST_ANSWER_SECONDS))
                yield end
            except TRANSIENT as error:
                late = deadlines.late()
                if late is not None:
                    raise late from error
                if sqlstate(error) == CANCELED:
                    limit = f"{seconds} s (statement timeout)"
                    detail = f"The query took longer than {limit}. Narrow it: a shorter time range, or more filters."
                    raise TooSlow(detail) from error
                raise
            finally:
                deadlines.begin(time.monotonic())  # the rest needs no response
                database.close()
                deadlines.forget()

    def _connect(self, end: float) -> None:
        self._check_silence(end)
        try:
            # Otherwise all waiting threads would try one after the other, each for the timeout of a connection.
            if not _connecting.acquire(timeout=max(0.0, end - time.monotonic())):
                raise Late("PostgreSQL did not respond in time")
            try:
                deadlines.begin(end)
                database.connect(reuse_if_open=True)  # a pooled connection is tested before it is used
            finally:
                _connecting.release()
        except TRANSIENT as error:
            silent = isinstance(error, Late) or deadlines.late() is not None
            self._silent_until = time.monotonic() + _PAUSE_SECONDS if silent else None
            raise
        self._silent_until = None

    def _check_silence(self, end: float) -> None:
        """Raises Late while PostgreSQL is known not to respond. After a pause only one thread tries again."""
        with self._lock:
            if self._silent_until is None:
                return
            if time.monotonic() < self._silent_until:
                raise Late("PostgreSQL did not respond a moment ago")
            self._silent_until = end + _PAUSE_SECONDS


READING = Connections(8, 10)
OPERATING = Connections(3, 10)
KEYS = Connections(4, 1, all_seconds=1.0)  # a message is accepted without PostgreSQL, so it does not wait long
EXPORTING = Connections(4, 20, 10.0)
STREAMING = Connections(1, 10)  # the thread that reads new messages
CATCHING_UP = Connections(2, 10)  # listeners that are behind: after a restart all return at once
HEALTH = Connections(1, 1, all_seconds=1.5)
CONNECTIONS = sum(each.count for each in (READING, OPERATING, KEYS, EXPORTING, STREAMING, CATCHING_UP, HEALTH))
