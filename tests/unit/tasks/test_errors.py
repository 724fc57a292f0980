"""Every error of ours says what must happen next: an exit code for processes, a status for HTTP, a fate for records."""

import psycopg2
import pytest

from tasks import errors
from tasks.errors import AccessDenied, BackendError, ConfigurationError, Unavailable
from tasks.store import connection


def test_exit_codes_are_distinct_except_for_the_base() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BackendError)}
    kinds.remove(BackendError)
    stopping = [kind.exit_code for kind in kinds if kind is not errors.BadRecord]
    assert len(set(stopping)) == len(stopping)
    assert all(kind.__doc__ and kind.__doc__.startswith("Raised when") for kind in kinds)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('connection to server at "db" failed: Connection refused\n\tIs the server running?', Unavailable),
        ('could not translate host name "db" to address', Unavailable),
        ('FATAL:  password authentication failed for user "me"', AccessDenied),
        ("fe_sendauth: no password supplied", AccessDenied),
        ('FATAL:  database "x" does not exist', AccessDenied),
        ('FATAL:  role "x" does not exist', AccessDenied),
        ("FATAL:  the database system is starting up", Unavailable),
        ("SSL error: certificate verify failed", AccessDenied),
        ('server certificate for "a" does not match host name "db"', AccessDenied),
        ("server does not support SSL, but SSL was required", AccessDenied),
        ('root certificate file "/database/ca.crt" does not exist', ConfigurationError),
        ('could not load private key file "/nowhere": No such file', ConfigurationError),
        ("SSL connection has been closed unexpectedly", Unavailable),
        ('invalid dsn: missing "=" after "x"', ConfigurationError),
    ],
)
def test_what_postgresql_says_becomes_a_sentence_that_names_the_setting(said: str, kind: type[BackendError]) -> None:
    explained = connection.explain(psycopg2.OperationalError(said))
    assert type(explained) is kind
    assert "DATABASE_URL" in str(explained)
    assert len(str(explained).splitlines()) == 1
