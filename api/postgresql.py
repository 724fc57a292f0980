"""Which requests share this process's connections to PostgreSQL, how many at once, and for how long.

Each purpose has connections of its own, so that readers who wait keep none from writers, operators or probes.
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
from api.deadlines import CANCELED, Late, TooSlow
from api.limits import Room
from tasks.database import TRANSIENT, database, limited

_FIRST_ANSWER_SECONDS = 3.0  # for a connection that answers
_PATIENCE_SECONDS = 2.0  # for others to give a connection back
_GRACE_SECONDS = 1.0  # PostgreSQL cancels a query that is over its limit; only if it does not, the connection is closed
_PAUSE_SECONDS = 1.0  # in which a PostgreSQL that did not answer is left alone
_BUSY = "All connections for such requests are in use. Try again, best after a pause that grows."
T = TypeVar("T")
_connecting = threading.Lock()  # the pool's own lock is held while a connection is made, and cannot be waited for


class Connections:
    """Some of this process's connections to PostgreSQL, for one purpose."""

    def __init__(
        self, count: int, seconds: int, patience_seconds: float = _PATIENCE_SECONDS, all_seconds: float = inf
    ) -> None:
        """`seconds` bound a query, `patience_seconds` the wait for one of them, `all_seconds` everything together."""
        self.count = count
        self._seconds = seconds
        self._all_seconds = all_seconds
        self._room = Room(count, patience_seconds, _BUSY)
        self._threads = ThreadPoolExecutor(count)  # started when they are needed
        self._lock = threading.Lock()
        self._silent_until: float | None = None

    @contextmanager
    def transaction(self, seconds: int | None = None) -> Iterator[None]:
        """A transaction whose statements are canceled after `seconds`, by default the purpose's, and which ends then.

        Raises Problem when no connection is free, Late, TooSlow, others of TRANSIENT, and what the statements raise.
        """
        most = seconds or self._seconds
        with self._connected(most) as end:
            deadlines.begin(min(end, time.monotonic() + most + _GRACE_SECONDS))
            with limited(most):
                yield

    def ask(self, question: Callable[[], T]) -> T:
        """What `question` returns, asked in a transaction in another thread: even the pool's locks can hang.

        Raises Late when that takes longer than `all_seconds`, and what `transaction` raises.
        """
        asked = self._threads.submit(copy_context().run, self._asked, question)
        try:
            return asked.result(self._all_seconds)
        except TimeoutError:
            raise Late(f"PostgreSQL did not answer within {self._all_seconds} s") from None
        finally:
            asked.cancel()

    def _asked(self, question: Callable[[], T]) -> T:
        with self.transaction():
            return question()

    @contextmanager
    def statements(self) -> Iterator[None]:
        """A connection for transactions of the caller's own, whose statements end after 10 s each. Raises the same."""
        with self._connected(self._seconds):
            deadlines.begin(None)
            yield

    @contextmanager
    def _connected(self, seconds: int) -> Iterator[float]:
        end = time.monotonic() + self._all_seconds
        with self._room:
            deadlines.forget()
            try:
                self._connect(min(end, time.monotonic() + _FIRST_ANSWER_SECONDS))
                yield end
            except TRANSIENT as error:
                late = deadlines.late()
                if late is not None:
                    raise late from error
                if deadlines.sqlstate(error) == CANCELED:
                    limit = f"The query took longer than {seconds} s (statement timeout)."
                    raise TooSlow(f"{limit} Narrow it: less time, or more filters.") from error
                raise
            finally:
                deadlines.begin(time.monotonic())  # what is left to do needs no answer
                database.close()
                deadlines.forget()

    def _connect(self, end: float) -> None:
        self._check_silence(end)
        try:
            # Else all who wait would wait one after the other, each as long as a connection may take.
            if not _connecting.acquire(timeout=max(0.0, end - time.monotonic())):
                raise Late("PostgreSQL did not answer in time")
            try:
                deadlines.begin(end)
                database.connect(reuse_if_open=True)  # a pooled connection answers before it is given out
            finally:
                _connecting.release()
        except TRANSIENT as error:
            silent = isinstance(error, Late) or deadlines.late() is not None
            self._silent_until = time.monotonic() + _PAUSE_SECONDS if silent else None
            raise
        self._silent_until = None

    def _check_silence(self, end: float) -> None:
        """Raises Late while PostgreSQL is known not to answer. After a pause one thread asks it, and others do not."""
        with self._lock:
            if self._silent_until is None:
                return
            if time.monotonic() < self._silent_until:
                raise Late("PostgreSQL did not answer a moment ago")
            self._silent_until = end + _PAUSE_SECONDS


READING = Connections(8, 10)
OPERATING = Connections(3, 10)
KEYS = Connections(4, 1, all_seconds=1.0)  # a message is accepted without PostgreSQL, and does not wait for it
EXPORTING = Connections(4, 20, 10.0)
STREAMING = Connections(1, 10)  # the thread that reads what is new
CATCHING_UP = Connections(2, 10)  # listeners that read for themselves: after a restart all come back together
HEALTH = Connections(1, 1, all_seconds=1.5)
CONNECTIONS = sum(each.count for each in (READING, OPERATING, KEYS, EXPORTING, STREAMING, CATCHING_UP, HEALTH))
