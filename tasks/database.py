"""The connection to PostgreSQL: one pool a process, opened late, and which of its errors pass by themselves."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import peewee
import psycopg2
from playhouse.pool import MaxConnectionsExceeded, PooledPostgresqlDatabase
from psycopg2.extensions import parse_dsn
from psycopg2.extras import register_default_jsonb

from tasks import tls, traces
from tasks.connection import Connection
from tasks.errors import AccessDenied, ConfigurationError, NotReady, Unavailable

_STALE_SECONDS = 30  # a server that was demoted still answers reads, and they should end soon
_PORT = 5432
_SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"  # PostgreSQL manual, "Message Formats": SSLRequest
_DELETED_AT_ONCE = 5_000  # few enough that a transaction of them is short
_FETCHED_FIRST, _FETCHED_AT_ONCE = 5, 20  # few enough that memory holds them, should each be as large as can be
_LARGE_ROW = 50_000  # bytes

# Away, restarting, out of connections, read-only, deadlocked, disk full: all end without us.
TRANSIENT = (
    psycopg2.OperationalError,
    psycopg2.InterfaceError,
    psycopg2.InternalError,
    peewee.OperationalError,
    peewee.InterfaceError,
    peewee.InternalError,
    MaxConnectionsExceeded,  # of this process's own pool
)
# SQLSTATEs (PostgreSQL manual, appendix A).
ACCESS_DENIED, CANCELED, NO_COLUMN, NO_TABLE = "42501", "57014", "42703", "42P01"
# Those of tables that are not as the migrations make them: no such column or schema, and a name that is taken.
_UNFIT = (NO_TABLE, NO_COLUMN, "3F000", "42P07")
# The values themselves: data exceptions (class 22), and program limits such as nesting (class 54).
REFUSED = (psycopg2.DataError, psycopg2.errors.ProgramLimitExceeded, psycopg2.errors.StatementTooComplex)


class Database(PooledPostgresqlDatabase):
    """PostgreSQL with jsonb read as its own text, so that no number loses digits on its way out.

    A connection on which a transient error was raised does not return to the pool, whoever catches that error.
    After a failure of the server, no connection that was made before returns: a session can outlive a failover and
    stay read-only.
    """

    _generation = 0  # counts the failures of the server

    def _connect(self) -> Any:
        with self._pool_lock:  # no failure is counted between connecting and the next line
            connection = super()._connect()
            if connection.generation is None:
                connection.generation = self._generation
        register_default_jsonb(connection, globally=False, loads=_as_text)
        return connection

    def _can_reuse(self, conn: Connection) -> bool:
        # Called by the pool, which holds its lock.
        if conn.server_failed and conn.generation == self._generation:
            self._generation += 1
            self.close_idle()
        return conn.generation == self._generation and not conn.failed and super()._can_reuse(conn)

    def execute_sql(self, sql: str, params: Any = None, *more: Any, **named: Any) -> Any:
        """Run a statement, as a span where there are traces."""
        with traces.sql(sql):
            return super().execute_sql(sql, params, *more, **named)


def _as_text(text: str) -> str:
    return text


database = Database(None, connection_factory=Connection)


def configure(url: str, process: str, connections: int) -> None:
    """Say where PostgreSQL is. Connects nothing: safe before a fork."""
    database.init(
        url,
        max_connections=connections,
        stale_timeout=_STALE_SECONDS,
        timeout=5,  # longest wait for a connection of the pool, seconds
        connect_timeout=5,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        application_name=f"backend-{process}",
    )


@contextmanager
def session() -> Iterator[None]:
    """A connection for a command; what PostgreSQL refuses meanwhile is said in one sentence.

    Raises Unavailable, AccessDenied, ConfigurationError, NotReady.
    """
    try:
        with database.connection_context():
            yield
    except peewee.ProgrammingError as error:
        said, code = str(error).splitlines()[0], sqlstate(error)
        setting = "--database-url / DATABASE_URL"
        if code == ACCESS_DENIED:
            raise AccessDenied(f"PostgreSQL does not let the user of {setting} do this: {said}") from error
        if code in _UNFIT:
            hint = f"run init; if that does not help, restore a backup or choose another database with {setting}"
            raise NotReady(f"the tables are not as this program needs them: {said}; {hint}") from error
        raise
    except TRANSIENT as error:
        raise explain(error) from error


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """A transaction in which each statement is canceled, with one of TRANSIENT, when it takes longer."""
    with database.atomic():
        database.execute_sql("SELECT set_config('statement_timeout', %s, true)", (f"{seconds}s",))
        yield


def delete_batches(statement: str, before: datetime) -> Iterator[int]:
    """Run a DELETE until it finds nothing, each time in a short transaction; yields how many rows each deleted.

    It takes `before`, `after_time`, `after_id` and `rows`, and returns time and id of each row. The keyset
    spares each run the index entries of all rows deleted before, which stay until the next vacuum.
    """
    after: tuple[datetime, str] = (datetime.min.replace(tzinfo=UTC), str(UUID(int=0)))
    while True:
        values = {"before": before, "after_time": after[0], "after_id": after[1], "rows": _DELETED_AT_ONCE}
        with database.atomic():
            gone = database.execute_sql(statement, values).fetchall()
        if not gone:
            return
        after = max((moment, str(row_id)) for moment, row_id in gone)
        yield len(gone)


def rows_within(query: str, values: Sequence[Any], most_bytes: int) -> tuple[list[tuple[Any, ...]], bool]:
    """The rows of a query until their texts hold `most_bytes`, or all; and whether there may be more.

    A LIMIT counts rows, and rows may be large: memory holds `most_bytes` and 20 rows, however many there are.
    """
    rows: list[tuple[Any, ...]] = []
    held, count = 0, _FETCHED_FIRST
    with database.atomic():
        database.execute_sql(f"DECLARE rows_within NO SCROLL CURSOR FOR {query}", values)
        while held < most_bytes:
            some = database.execute_sql(f"FETCH {count} FROM rows_within").fetchall()
            rows += some
            held += sum(len(value) for row in some for value in row if isinstance(value, str))
            if len(some) < count:
                return rows, False
            count = _FETCHED_FIRST if held > _LARGE_ROW * len(rows) else _FETCHED_AT_ONCE
        database.execute_sql("CLOSE rows_within")
    return rows, True


def _distrust() -> str | None:
    """Why PostgreSQL's certificate is not trusted, which libpq does not say; None when that is not found out."""
    try:
        place = parse_dsn(database.database or "")
        authorities = place.get("sslrootcert")
        if authorities in (None, "system"):
            return None
        trusted = tls.context(authorities)
        trusted.check_hostname = False  # libpq says itself when that is it
        tls.connect(place["host"], int(place.get("port", _PORT)), trusted, _SSL_REQUEST).close()
    except (OSError, LookupError, ValueError, psycopg2.Error) as error:
        return tls.distrust(error)
    return None


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of an error of psycopg2, or of Peewee's around it; None when PostgreSQL did not send one."""
    cause: BaseException | None = error
    while isinstance(cause, peewee.PeeweeException):
        cause = getattr(cause, "orig", None)  # Peewee may have wrapped it more than once
    code: str | None = getattr(cause, "pgcode", None)
    return code


def explain(error: Exception) -> Unavailable | AccessDenied | ConfigurationError:
    """Our error for a failed connection: what PostgreSQL said, and the setting to look at."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # libpq puts one line for each address it tried; the last says the reason.
    said = (lines[-1] if lines else type(error).__name__).removeprefix("Is the server running").strip()
    text = str(error)
    setting = "--database-url / DATABASE_URL"
    if "authentication failed" in text or "no pg_hba.conf entry" in text or "no password supplied" in text:
        return AccessDenied(f"PostgreSQL refused the user or password of {setting}: {said}")
    if "permission denied" in text:
        return AccessDenied(f"PostgreSQL does not let the user of {setting} connect: {said}")
    if "certificate file" in text or "private key file" in text:
        return ConfigurationError(f"a file named in {setting} cannot be used: {lines[0]}")
    if "role" in text and "does not exist" in text:
        return AccessDenied(f"PostgreSQL does not know the user of {setting}: {said}")
    if "database" in text and "does not exist" in text:
        return AccessDenied(f"PostgreSQL has no such database; create it or change {setting}: {said}")
    if "certificate verify failed" in text or "does not match host name" in text:
        why = _distrust() or said
        return AccessDenied(f"the certificate of PostgreSQL is not trusted (sslrootcert in {setting}): {why}")
    if "server does not support SSL" in text:
        return AccessDenied(f"PostgreSQL speaks no TLS, and sslmode in {setting} asks for it")
    if "invalid" in text and "dsn" in text.lower():
        return ConfigurationError(f"{setting} is no PostgreSQL address")
    return Unavailable(f"PostgreSQL does not answer ({setting}): {lines[0] if lines else said}")
