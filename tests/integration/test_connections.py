"""The pool keeps a connection only while nothing on it failed for a reason that may last."""

import io
import threading
from collections.abc import Callable

import peewee
import pytest

from tasks import database
from tests.world import World

_READ_ONLY = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
_INSERT = "INSERT INTO idempotency_key (key, body) VALUES (gen_random_uuid(), '')"


def run(statement: str) -> None:
    database.database.execute_sql(statement)


def session() -> int:
    """The server's process behind the connection that the pool hands out."""
    with database.database.connection_context():
        return int(database.database.execute_sql("SELECT pg_backend_pid()").fetchone()[0])


def copy() -> None:
    cursor = database.database.connection().cursor()
    cursor.copy_expert("COPY idempotency_key (key, body) FROM STDIN", io.StringIO(""))


def end_session() -> None:
    run("SELECT pg_terminate_backend(pg_backend_pid())")


def swallowed(action: Callable[[], None]) -> None:
    """Run on a read-only session, and catch the error before the connection is given back, as views do."""
    with database.database.connection_context():
        run(_READ_ONLY)
        with pytest.raises(database.TRANSIENT):
            action()


@pytest.mark.parametrize("action", [lambda: run(_INSERT), copy, end_session], ids=["statement", "COPY", "ended"])
def test_a_failed_connection_is_not_used_again(tables: World, action: Callable[[], None]) -> None:
    before = session()
    assert session() == before
    swallowed(action)
    assert session() != before


def test_a_failed_commit_ends_its_connection(tables: World) -> None:
    with database.database.connection_context(), pytest.raises(peewee.PeeweeException), database.database.atomic():
        pid = database.database.execute_sql("SELECT pg_backend_pid()").fetchone()[0]
        assert tables.sql("SELECT pg_terminate_backend(%s, 5000)", pid) == [(True,)]
    assert session() != pid


def test_a_failed_transaction_ends_its_connection(tables: World) -> None:
    before = session()
    with pytest.raises(peewee.InternalError), database.database.connection_context(), database.database.atomic():
        run("SET TRANSACTION READ ONLY")
        run(_INSERT)
    assert session() != before


def test_after_a_failure_of_the_server_older_connections_are_not_used_either(tables: World) -> None:
    others: list[int] = []
    failed, used = threading.Event(), threading.Event()

    def hold() -> None:
        with database.database.connection_context():
            others.append(int(database.database.execute_sql("SELECT pg_backend_pid()").fetchone()[0]))
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
    ["SELECT 1 / 0", "SELECT * FROM nowhere", "INSERT INTO schema_version (version, summary) VALUES (1, '')"],
)
def test_what_a_statement_itself_did_wrong_costs_no_connection(tables: World, statement: str) -> None:
    before = session()
    with database.database.connection_context(), pytest.raises(peewee.DatabaseError):
        run(statement)
    assert session() == before


def test_a_canceled_statement_costs_only_its_own_connection(tables: World) -> None:
    with database.database.connection_context():
        other = threading.Thread(target=session)  # a second connection, idle from then on
        other.start()
        other.join(10)
        run("SET statement_timeout = '10ms'")
        with pytest.raises(peewee.OperationalError):
            run("SELECT pg_sleep(5)")
    assert len(database.database._connections) == 1
