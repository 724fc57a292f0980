"""The pool keeps a connection only if no error on it may last."""

import io
import threading
from collections.abc import Callable

import peewee
import pytest

from tasks.store import connection
from tasks.store.migrations import VERSION
from tests.world import World

_READ_ONLY = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
_INSERT = "INSERT INTO idempotency_key (key, body) VALUES (gen_random_uuid(), '')"


def run(statement: str) -> None:
    connection.database.execute_sql(statement)


def session() -> int:
    """The server's process behind the connection that the pool hands out."""
    with connection.database.connection_context():
        return int(connection.database.execute_sql("SELECT pg_backend_pid()").fetchone()[0])


def copy() -> None:
    cursor = connection.database.connection().cursor()
    cursor.copy_expert("COPY idempotency_key (key, body) FROM STDIN", io.StringIO(""))


def end_session() -> None:
    run("SELECT pg_terminate_backend(pg_backend_pid())")


def swallowed(action: Callable[[], None]) -> None:
    """Run on a read-only session, and catch the error before the connection is returned, as views do."""
    with connection.database.connection_context():
        run(_READ_ONLY)
        with pytest.raises(connection.TRANSIENT):
            action()


@pytest.mark.parametrize("action", [lambda: run(_INSERT), copy, end_session], ids=["statement", "COPY", "ended"])
def test_a_failed_connection_is_not_used_again(tables: World, action: Callable[[], None]) -> None:
    before = session()
    assert session() == before
    swallowed(action)
    assert session() != before


def test_a_failed_commit_ends_its_connection(tables: World) -> None:
    with connection.database.connection_context(), pytest.raises(peewee.PeeweeException), connection.database.atomic():
        pid = connection.database.execute_sql("SELECT pg_backend_pid()").fetchone()[0]
        assert tables.sql("SELECT pg_terminate_backend(%s, 5000)", pid) == [(True,)]
    assert session() != pid


def test_a_failed_transaction_ends_its_connection(tables: World) -> None:
    before = session()
    with pytest.raises(peewee.InternalError), connection.database.connection_context(), connection.database.atomic():
        run("SET TRANSACTION READ ONLY")
        run(_INSERT)
    assert session() != before


def test_after_a_failure_of_the_server_older_connections_are_not_used_either(tables: World) -> None:
    others: list[int] = []
    failed, used = threading.Event(), threading.Event()

    def hold() -> None:
        with connection.database.connection_context():
            others.append(int(connection.database.execute_sql("SELECT pg_backend_pid()").fetchone()[0]))
            used.set()
            failed.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    assert used.wait(10)
    swallowed(lambda: run(_INSERT))
    failed.set()
    other.join(10)
    assert session() not in others


@pytest.mark.parametrize(
    "statement",
    ["SELECT 1 / 0", "SELECT * FROM nowhere", f"INSERT INTO schema_version (version, summary) VALUES ({VERSION}, '')"],
)
def test_what_a_statement_itself_did_wrong_costs_no_connection(tables: World, statement: str) -> None:
    before = session()
    with connection.database.connection_context(), pytest.raises(peewee.DatabaseError):
        run(statement)
    assert session() == before


def test_a_canceled_statement_costs_only_its_own_connection(tables: World) -> None:
    with connection.database.connection_context():
        other = threading.Thread(target=session)  # a second connection, idle from then on
        other.start()
        other.join(10)
        run("SET statement_timeout = '10ms'")
        with pytest.raises(peewee.OperationalError):
            run("SELECT pg_sleep(5)")
    assert len(connection.database._connections) == 1
