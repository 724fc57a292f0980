"""The connection to PostgreSQL: one pool a process, opened late; and which of its errors are transient."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import peewee
import psycopg2
from playhouse.pool import MaxConnectionsExceeded, PooledPostgresqlDatabase
from psycopg2.extensions import parse_dsn
from psycopg2.extras import register_default_jsonb

from tasks.config import tls
from tasks.errors import AccessDenied, ConfigurationError, NotReady, Unavailable
from tasks.observability import traces
from tasks.store.session import Connection

_STALE_SECONDS = 30  # reads on a demoted server do not fail, and should end soon
_PORT = 5432
_SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"  # PostgreSQL manual, "Message Formats": SSLRequest

# Unavailable, restarting, out of connections, read-only, deadlocked, disk full: a later attempt may succeed.
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
LOCK_NOT_AVAILABLE = "55P03"
_ATTEMPTS, _LOCK_TIMEOUT = 100, "200ms"  # writers wait no longer, behind an attempt that waits for a reader
# Tables that differ from the migrations: no such column or schema, and a name that is taken.
_UNFIT = (NO_TABLE, NO_COLUMN, "3F000", "42P07")
# The value is the cause: data exceptions (class 22), and program limits such as nesting (class 54).
REFUSED = (psycopg2.DataError, psycopg2.errors.ProgramLimitExceeded, psycopg2.errors.StatementTooComplex)


class Database(PooledPostgresqlDatabase):
    """PostgreSQL, with jsonb read as text, so that no number loses digits.

    A connection that raised a transient error does not return to the pool, wherever the error is caught.
    After a failure of the server, no connection that was made before returns: a session can outlive a failover and
    stay read-only.
    """

    _generation = 0  # counts the failures of the server

    def _connect(self) -> Any:
        with self._pool_lock:  # no failure may be counted between connecting and the next line
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

    def forget(self) -> None:
        """Forget the connections of the parent process after a fork: both would write to their sockets."""
        # Another thread of the parent may have held them, to connect.
        self._lock, self._pool_lock = threading.Lock(), threading.RLock()
        self._pool_available = threading.Condition(self._pool_lock)
        self.dispose()  # psycopg2 closes no connection of another process

    def execute_sql(self, sql: str, params: Any = None, *more: Any, **named: Any) -> Any:
        """Run a statement, in a span if tracing is on."""
        with traces.sql(sql):
            return super().execute_sql(sql, params, *more, **named)


def _as_text(text: str) -> str:
    return text


database = Database(None, connection_factory=Connection)


def configure(url: str, process: str, connections: int) -> None:
    """Set the address of PostgreSQL. It does not connect, so it is safe before a fork."""
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
    """A connection for a command. Errors of PostgreSQL become ours, each with one sentence.

    Raises Unavailable, AccessDenied, ConfigurationError, NotReady.
    """
    try:
        with database.connection_context():
            yield
    except peewee.ProgrammingError as error:
        text, code = str(error).splitlines()[0], sqlstate(error)
        setting = "--database-url / DATABASE_URL"
        if code == ACCESS_DENIED:
            raise AccessDenied(f"PostgreSQL does not let the user of {setting} do this: {text}") from error
        if code in _UNFIT:
            hint = f"run init; if that does not help, restore a backup or choose another database with {setting}"
            raise NotReady(f"the tables do not match this program: {text}; {hint}") from error
        raise
    except TRANSIENT as error:
        raise explain(error) from error


@contextmanager
def checked_out() -> Iterator[None]:
    """A connection of the pool, unless this thread has one already."""
    connected = database.connect(reuse_if_open=True)
    try:
        yield
    finally:
        if connected:
            database.close()


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """A transaction in which PostgreSQL cancels each statement that takes longer, with an error of TRANSIENT."""
    with database.atomic():
        database.execute_sql("SELECT set_config('statement_timeout', %s, true)", (f"{seconds}s",))
        yield


@contextmanager
def local_commit() -> Iterator[None]:
    """A transaction whose COMMIT waits for no standby: what it writes is written again if it is lost with a server."""
    with database.atomic():
        database.execute_sql("SET LOCAL synchronous_commit = local")
        yield


def briefly(change: Callable[[], object]) -> bool:
    """A transaction that locks writers out; False if it did not get its locks in many short attempts."""
    for _ in range(_ATTEMPTS):
        try:
            with database.atomic():
                database.execute_sql("SELECT set_config('lock_timeout', %s, true)", (_LOCK_TIMEOUT,))
                change()
            return True
        except peewee.OperationalError as error:
            if sqlstate(error) != LOCK_NOT_AVAILABLE:
                raise
    return False


def _distrust() -> str | None:
    """Why PostgreSQL's certificate is not trusted, which libpq does not tell; None if a handshake does not either."""
    try:
        place = parse_dsn(database.database or "")
        authorities = place.get("sslrootcert")
        if authorities in (None, "system"):
            return None
        trusted = tls.context(authorities)
        trusted.check_hostname = False  # libpq has an error of its own for a wrong host name
        tls.connect(place["host"], int(place.get("port", _PORT)), trusted, _SSL_REQUEST).close()
    except (OSError, LookupError, ValueError, psycopg2.Error) as error:
        return tls.distrust(error)
    return None


def sqlstate(error: BaseException) -> str | None:
    """The SQLSTATE of an error of psycopg2, or of Peewee's wrapper; None if PostgreSQL sent none."""
    cause: BaseException | None = error
    while isinstance(cause, peewee.PeeweeException):
        cause = getattr(cause, "orig", None)  # Peewee may have wrapped it more than once
    code: str | None = getattr(cause, "pgcode", None)
    return code


def explain(error: Exception) -> Unavailable | AccessDenied | ConfigurationError:
    """Our error for a failed connection: PostgreSQL's message, and the setting to check."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # libpq writes a line for each address that it tried; the last one has the reason.
    reason = (lines[-1] if lines else type(error).__name__).removeprefix("Is the server running").strip()
    text = str(error)
    setting = "--database-url / DATABASE_URL"
    if "authentication failed" in text or "no pg_hba.conf entry" in text or "no password supplied" in text:
        return AccessDenied(f"PostgreSQL refused the user or password of {setting}: {reason}")
    if "permission denied" in text:
        return AccessDenied(f"PostgreSQL does not let the user of {setting} connect: {reason}")
    if "certificate file" in text or "private key file" in text:
        return ConfigurationError(f"a file named in {setting} cannot be used: {lines[0]}")
    if "role" in text and "does not exist" in text:
        return AccessDenied(f"PostgreSQL does not know the user of {setting}: {reason}")
    if "database" in text and "does not exist" in text:
        return AccessDenied(f"PostgreSQL has no such database; create it or change {setting}: {reason}")
    if "certificate verify failed" in text or "does not match host name" in text:
        why = _distrust() or reason
        return AccessDenied(f"the certificate of PostgreSQL is not trusted (sslrootcert in {setting}): {why}")
    if "server does not support SSL" in text:
        return AccessDenied(f"PostgreSQL does not support TLS, which sslmode in {setting} requires")
    if "invalid" in text and "dsn" in text.lower():
        return ConfigurationError(f"{setting} is not a PostgreSQL URL")
    return Unavailable(f"PostgreSQL does not respond ({setting}): {lines[0] if lines else reason}")
