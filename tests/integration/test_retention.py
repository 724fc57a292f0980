"""`retention` deletes only old messages and handled dead letters, while writers continue."""

import orjson

from tasks.message import Record
from tasks.store import batches as store
from tasks.store import connection
from tests.records import store_all
from tests.world import World


def messages(world: World, count: int, days: float) -> None:
    """A number of messages that were stored some days ago."""
    world.sql(
        'INSERT INTO message (id, topic, "partition", "offset", produced_at, stored_at)'
        " SELECT gen_random_uuid(), 't', 0, n, now(), now() - %s * interval '1 day' FROM generate_series(1, %s) n",
        *(days, count),
    )


def dead_letter(world: World, state: str, days: float) -> None:
    """A very old dead letter, handled some days ago unless it waits."""
    world.sql(
        'INSERT INTO dead_letter (id, topic, "partition", "offset", produced_at, dead_at, reason, detail, state,'
        " handled_at) VALUES (gen_random_uuid(), 't', 0, 0, now(), now() - interval '99 days', 'r', '', %s,"
        " CASE WHEN %s <> 'waiting' THEN now() - %s * interval '1 day' END)",
        *(state, state, days),
    )


def outcome(world: World, *arguments: str) -> tuple[int, int]:
    done = world.run("retention", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    line = orjson.loads(done.stdout.splitlines()[-1])
    assert line["event"] == "retention.done"
    return line["messages"], line["dead_letters"]


def test_only_what_is_old_is_deleted(ready: World) -> None:
    messages(ready, 3, days=8)
    messages(ready, 2, days=6.9)
    assert outcome(ready, "--retention-days", "7", "--dry-run") == (3, 0)
    assert ready.count() == 5
    assert outcome(ready, "--retention-days", "7") == (3, 0)
    assert outcome(ready, "--retention-days", "7") == (0, 0)
    assert ready.count() == 2


def test_of_dead_letters_only_handled_ones_are_deleted(ready: World) -> None:
    for state in ("waiting", "redriven", "discarded"):
        dead_letter(ready, state, days=8)
        dead_letter(ready, state, days=1)
    assert outcome(ready, "--dead-letter-retention-days", "7", "--dry-run") == (0, 2)
    assert outcome(ready, "--dead-letter-retention-days", "7") == (0, 2)
    left = ready.sql("SELECT state, count(*) FROM dead_letter GROUP BY state ORDER BY state")
    assert left == [("discarded", 1), ("redriven", 1), ("waiting", 2)]


def test_without_a_number_of_days_everything_is_kept(ready: World) -> None:
    messages(ready, 1, days=9999)
    dead_letter(ready, "discarded", days=9999)
    assert outcome(ready) == (0, 0)
    assert ready.count() == 2


def test_a_writer_stores_between_the_batches_and_nothing_new_is_lost(tables: World) -> None:
    messages(tables, 12_000, days=8)
    before = tables.sql("SELECT now() - interval '7 days'")[0][0]
    batches = []
    with connection.database.connection_context():
        for number, deleted in enumerate(store.delete_before(before)):
            batches.append(deleted)
            record = Record("topic", 0, number, 1_700_000_000_123, None, b"{}", ())
            assert store_all(store, [record]).stored == 1
    assert batches == [5000, 5000, 2000]
    assert tables.count() == len(batches)


def test_it_waits_for_no_writer_and_no_writer_for_it(tables: World) -> None:
    messages(tables, 2, days=8)
    before = tables.sql("SELECT now() - interval '7 days'")[0][0]
    with connection.database.connection_context(), connection.database.atomic():
        connection.database.execute_sql("SELECT * FROM message LIMIT 1 FOR UPDATE")
        assert outcome(tables, "--retention-days", "7") == (1, 0)
        record = Record("topic", 0, 1, 1_700_000_000_123, None, b"{}", ())
        store_all(store, [record])
    with connection.database.connection_context():
        assert sum(store.delete_before(before)) == 1
    assert tables.count() == 1


def test_deleting_is_served_by_an_index(tables: World) -> None:
    messages(tables, 20_000, days=1)
    tables.sql("ANALYZE message")
    given = {"before": "2000-01-01Z", "after_time": "1000-01-01Z", "rows": 5000}
    given["after_id"] = "00000000-0000-0000-0000-000000000000"
    with connection.database.connection_context():
        plan = connection.database.execute_sql(f"EXPLAIN {store._DELETE_OLDEST}", given).fetchall()
    assert any("message_stored_at" in line for (line,) in plan), plan


def test_a_database_that_is_away_is_one_sentence(world: World) -> None:
    done = world.run("retention", database_url="postgresql://backend@127.0.0.1:1/backend")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert world.run("retention").returncode == 5
