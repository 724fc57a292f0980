"""Deadlines for every wait for PostgreSQL, and the meaning of its errors for a client.

A server that hangs, or a network that drops packets, triggers no timeout of PostgreSQL, and libpq waits forever.
So psycopg2 waits with our callback (`wait`), which knows the deadline of its thread.
"""

import select
import threading
import time

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, connection, set_wait_callback

from tasks.errors import BackendError
from tasks.store.connection import ACCESS_DENIED, NO_TABLE, TRANSIENT, explain, sqlstate

_STATEMENT_SECONDS = 10.0  # of a statement in a thread without a deadline


class Late(psycopg2.OperationalError):
    """Raised when PostgreSQL did not respond before the deadline; the connection is closed."""


class TooSlow(BackendError):
    """Raised when a query exceeded its time limit."""


class _OfThread(threading.local):
    end: float | None = None  # by time.monotonic
    late: Late | None = None  # the last error of `wait`: Peewee and failing rollbacks raise other errors in its place


_thread = _OfThread()


def install() -> None:
    """Apply deadlines to every connection of this process. COPY is impossible then (psycopg2, "Green support")."""
    set_wait_callback(wait)


def wait(database_connection: connection) -> None:
    """psycopg2's wait callback. Raises Late."""
    began = time.monotonic()
    end = began + _STATEMENT_SECONDS if _thread.end is None else _thread.end
    while (state := database_connection.poll()) != POLL_OK:
        ready = select.poll()  # a new one each time: a connection to the next address has another descriptor
        ready.register(database_connection.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
        if not ready.poll(max(0.0, end - time.monotonic()) * 1000):
            _thread.late = Late(f"PostgreSQL did not respond within {max(end - began, 0.0):.1f} s")
            raise _thread.late


def begin(end: float | None) -> None:
    """Set the end of this thread's waits (time.monotonic); None: 10 s for each statement."""
    _thread.end = end


def forget() -> None:
    """Clear the deadline and the error of this thread."""
    _thread.end = _thread.late = None


def late() -> Late | None:
    """The error of this thread since its last `forget`; None if there was none."""
    return _thread.late


def reason(error: Exception) -> str:
    """Why PostgreSQL cannot be used, as a sentence for health and statistics."""
    first = str(error).strip().partition("\n")[0]
    code = sqlstate(error)
    if code == NO_TABLE:
        return "the tables are missing: run init"
    if code == ACCESS_DENIED:
        return f"access denied: {first}"
    if isinstance(error, TRANSIENT) and not isinstance(error, Late):
        return str(explain(error))
    return first or type(error).__name__
