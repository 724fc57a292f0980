"""Lends the transaction of an obligation to a user's function, and finds out what the function did to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INERROR

from tasks.store.connection import database, sqlstate

_GRACE_SECONDS = 30
# Functions must not be blamed: two of them met.
_SERIALIZATION_FAILURE, _DEADLOCK = "40001", "40P01"
_BEGIN = "SELECT pg_current_xact_id()::text, set_config('idle_in_transaction_session_timeout', %s, true)"
_OUTCOME = "SELECT pg_xact_status(%s::xid8)"
_SAVEPOINT = "SAVEPOINT run; SET CONSTRAINTS ALL DEFERRED"
# So that a deferred constraint fails here, where it is known who violates it.
_RELEASE = "SET CONSTRAINTS ALL IMMEDIATE; RELEASE SAVEPOINT run"


class Ended(Exception):
    """Raised when a function has ended the transaction that it was lent; `committed` says in which way."""

    def __init__(self, committed: bool) -> None:
        super().__init__(f"it {'committed' if committed else 'rolled back'} the transaction in which it ran")
        self.committed = committed


class Interrupted(psycopg2.OperationalError):
    """Raised when the transaction failed for a reason that is not the function's."""


class Lent:
    """One transaction. The session of a frozen process is ended by PostgreSQL, or its locks would remain."""

    def __init__(self, time_limit: float) -> None:
        self._milliseconds = round(1000 * (time_limit + _GRACE_SECONDS))
        self._number = ""
        self._savepoint = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """The transaction, committed at its end. Raises Ended, Interrupted, and what the COMMIT raises."""
        with database.atomic():
            [self._number, _] = database.execute_sql(_BEGIN, (f"{self._milliseconds}ms",)).fetchone()
            yield

    @contextmanager
    def to_a_function(self, savepoint: bool) -> Iterator[None]:
        """Around a call; with a savepoint only what a failed call wrote is rolled back."""
        self._savepoint = savepoint
        if savepoint:
            database.execute_sql(_SAVEPOINT)
        self._connection().lent = True
        try:
            yield
        finally:
            self._connection().lent = False

    def after_call(self, error: Exception | None) -> Exception | None:
        """The exception of the call, also if it only shows now. Raises Ended, Interrupted."""
        connection = self._connection()
        connection.lent = False
        if connection.closed or connection.server_failed or (error and sqlstate(error) in _BLAMELESS):
            raise Interrupted("the transaction of a task was interrupted") from error
        status = connection.get_transaction_status()
        if status == TRANSACTION_STATUS_IDLE:
            raise Ended(database.execute_sql(_OUTCOME, (self._number,)).fetchone()[0] == "committed")
        if status == TRANSACTION_STATUS_INERROR and error is None:
            error = RuntimeError("a statement failed, and the function went on: use database.atomic() around it")
        return self._settled(error) if self._savepoint else error

    def _settled(self, error: Exception | None) -> Exception | None:
        if error is None:
            try:
                database.execute_sql(_RELEASE)
            except Exception as violation:
                error = violation
        if error is not None:
            database.execute_sql("ROLLBACK TO SAVEPOINT run")
        return error

    def _connection(self) -> Any:
        return database.connection()


_BLAMELESS = (_SERIALIZATION_FAILURE, _DEADLOCK)
