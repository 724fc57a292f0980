"""The API on a real PostgreSQL, in this process, without Kafka."""

import signal
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from bridge.kafka.publisher import KafkaPublisher
from tasks import database
from tasks.store import connection
from tasks.worker import attempt, execution
from tests.world import World


@pytest.fixture
def client(ready: World) -> Iterator[FlaskClient]:
    connection.configure(ready.variables["DATABASE_URL"], "test", connections=4)
    settings = ready.settings(kafka_brokers="127.0.0.1:1")
    publisher = KafkaPublisher(settings)
    yield create_app(settings, publisher).test_client()
    publisher.close()
    connection.database.close()
    connection.database.close_all()


@pytest.fixture
def rows(ready: World) -> list[str]:
    """25 messages, five for each stored_at, newest first, in two leaves."""
    for begin, end in (("00:00", "03:00"), ("03:00", "24:00")):
        bounds = f"FROM ('2026-01-01 {begin}Z') TO ('2026-01-01 {end}Z')"
        ready.sql(f"CREATE TABLE message_until_{end[:2]} PARTITION OF message FOR VALUES {bounds}")
    ready.sql(
        'INSERT INTO message (id, topic, "partition", "offset", produced_at, stored_at, type, key, payload)'
        " SELECT gen_random_uuid(), 't' || n % 2, 0, n, now(), timestamptz '2026-01-01Z' + n / 5 * interval '1 hour',"
        " 'type-' || n % 3, 'k' || n % 4, jsonb_build_object('n', n) FROM generate_series(0, 24) n"
    )
    return [str(row[0]) for row in ready.sql("SELECT id FROM message ORDER BY stored_at DESC, id DESC")]


@pytest.fixture
def task_process(tables: World) -> Iterator[World]:
    """This process as one that runs users' tasks, with a connection to real tables."""
    before = signal.getsignal(signal.SIGALRM)
    attempt.prepare_process()
    execution._measured.clear()
    with database.connection_context():
        yield tables
    signal.signal(signal.SIGALRM, before)
