"""A session with PostgreSQL that records its failures, so that the pool can decide whether to keep it."""

import re
from typing import Any

import psycopg2
import psycopg2.extensions

_PROGRAM_LIMIT = "54"  # SQLSTATE class: the value is too complex; the session is not affected
# SQLSTATEs and classes whose cause is one statement, not the server:
# query_canceled, lock_not_available, no_active_sql_transaction, in_failed_sql_transaction, transaction rollback, an
# error raised by PL/pgSQL.
_ONE_STATEMENT = ("57014", "55P03", "25P01", "25P02", "40", "P0")


# Statements that begin or end a transaction; ROLLBACK TO a savepoint does not.
_CONTROL = re.compile(
    r"\s*(BEGIN|START\s|COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!(\s+(WORK|TRANSACTION))?\s+TO\s))\b", re.I
)


class Connection(psycopg2.extensions.connection):
    """Records every transient error of its cursors.

    `failed`: a statement failed for a reason that may be tied to this session, as with one that began while the
    server was read-only. `server_failed`: other sessions with that server are likely to fail as well.
    `lent`: a user's function has it, inside a transaction of ours, and must not end that.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.cursor_factory = _Cursor
        self.failed = self.server_failed = self.lent = False
        self.generation: int | None = None  # set by the pool

    def note(self, error: psycopg2.Error) -> None:
        """Record an error that a statement raised."""
        transient = (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.InternalError)
        code = error.pgcode or ""  # none if the connection broke
        if isinstance(error, transient) and not code.startswith(_PROGRAM_LIMIT):
            self.failed = True
            self.server_failed = self.server_failed or not code.startswith(_ONE_STATEMENT)


class _Cursor(psycopg2.extensions.cursor):
    # These two methods run every statement: those of Peewee, with BEGIN and COMMIT, and COPY.
    connection: Connection

    def execute(self, query: Any, vars: Any = None) -> None:
        if self.connection.lent and isinstance(query, str) and _CONTROL.match(query):
            word = query.split()[0].strip(";").upper()
            raise psycopg2.ProgrammingError(
                f"a task with transaction=True must not use {word}: what it writes is committed with the end of its run"
            )
        try:
            super().execute(query, vars)
        except psycopg2.Error as error:
            self.connection.note(error)
            raise

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        try:
            super().copy_expert(sql, file, size)
        except psycopg2.Error as error:
            self.connection.note(error)
            raise
