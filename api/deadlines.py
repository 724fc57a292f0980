"""No wait for PostgreSQL without an end, and what its errors mean to those who asked.

A server that hangs, or a network that swallows packets, triggers no timeout of PostgreSQL's, and libpq waits for it
without end. So psycopg2 waits by a callback of ours (`wait`), which knows the deadline of its thread.
"""

import select
import threading
import time

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, connection, set_wait_callback

from tasks.database import ACCESS_DENIED, NO_TABLE, TRANSIENT, explain, sqlstate
from tasks.errors import BackendError

_STATEMENT_SECONDS = 10.0  # of a statement in a thread without a deadline


class Late(psycopg2.OperationalError):
    """Raised when PostgreSQL did not answer before the deadline; the connection is closed."""


class TooSlow(BackendError):
    """Raised when a query took longer than it may."""


class _OfThread(threading.local):
    end: float | None = None  # by time.monotonic
    late: Late | None = None  # what `wait` raised last: Peewee and failing rollbacks raise other errors over it


_thread = _OfThread()


def install() -> None:
    """Let every connection of this process wait by deadlines. COPY is impossible then (psycopg2, "Green support")."""
    set_wait_callback(wait)


def wait(asked: connection) -> None:
    """psycopg2's wait callback. Raises Late."""
    began = time.monotonic()
    end = began + _STATEMENT_SECONDS if _thread.end is None else _thread.end
    while (state := asked.poll()) != POLL_OK:
        ready = select.poll()  # a new one each time: a connection to the next address has another descriptor
        ready.register(asked.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
        if not ready.poll(max(0.0, end - time.monotonic()) * 1000):
            _thread.late = Late(f"PostgreSQL did not answer within {max(end - began, 0.0):.1f} s")
            raise _thread.late


def begin(end: float | None) -> None:
    """Let this thread's waits end at `end` (by time.monotonic); None: each statement's after 10 s."""
    _thread.end = end


def forget() -> None:
    """Let this thread have no deadline and no late answer."""
    _thread.end = _thread.late = None


def late() -> Late | None:
    """The late answer since this thread's `forget`, if there was one."""
    return _thread.late


def reason(error: Exception) -> str:
    """What is wrong with PostgreSQL, as a sentence for health and statistics."""
    first = str(error).strip().partition("\n")[0]
    code = sqlstate(error)
    if code == NO_TABLE:
        return "the tables are missing: run init"
    if code == ACCESS_DENIED:
        return f"access denied: {first}"
    if isinstance(error, TRANSIENT) and not isinstance(error, Late):
        return str(explain(error))
    return first or type(error).__name__
