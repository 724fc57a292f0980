"""`retention` deletes only old messages and handled dead letters, while writers continue."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import orjson

from tasks.message import Record
from tasks.store import batches as store
from tasks.store import connection
from tests.records import store_all
from tests.waiting import BUSY
from tests.world import World


def messages(world: World, count: int, days: float) -> None:
    """A number of messages that were stored some days ago, in the leaf of that day, as they were counted."""
    stored_at = datetime.now(UTC) - timedelta(days=days)
    day = stored_at.date()
    bounds = f"FROM ('{day}Z') TO ('{day + timedelta(1)}Z')"
    world.sql(f"CREATE TABLE message_{day:%Y%m%d} PARTITION OF message FOR VALUES {bounds}")
    world.sql(
        'INSERT INTO message (id, topic, "partition", "offset", produced_at, stored_at)'
        " SELECT gen_random_uuid(), 't', 0, n, now(), %s FROM generate_series(1, %s) n",
        *(stored_at, count),
    )
    world.sql("INSERT INTO message_count VALUES ('hour', %s, 't', NULL, false, %s)", stored_at, count)


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


def test_messages_for_which_a_task_has_still_to_run_are_kept(ready: World) -> None:
    messages(ready, 3, days=9)
    messages(ready, 2, days=8)
    ready.sql(
        'INSERT INTO chunk (task, topic, "partition", first_offset, next_offset, stored_at, messages, bytes)'
        " SELECT 1, 't', 0, 1, 2, stored_at, 1, 1 FROM message ORDER BY stored_at DESC LIMIT 1"
    )
    assert outcome(ready, "--retention-days", "7") == (3, 0)
    assert ready.count() == 2
    ready.sql("DELETE FROM chunk")
    assert outcome(ready, "--retention-days", "7") == (2, 0)


def test_ids_are_forgotten_before_their_messages(tables: World) -> None:
    headers = [("message-id", b"10000000-0000-4000-a000-000000000001")]
    first, again = (Record("topic", 0, offset, 1, None, b"{}", headers) for offset in (0, 1))
    assert store_all(store, [first]).stored == 1
    for days, stored in ((9, 0), (7, 1)):
        tables.sql("UPDATE claim SET stored_at = now() - interval '8 days'")
        assert outcome(tables, "--dedupe-days", str(days)) == (0, 0)
        assert store_all(store, [again]).stored == stored
        again = again._replace(offset=again.offset + 1)
    assert tables.count() == 2


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


def test_ten_thousand_claims_go_with_their_messages_and_their_ids_are_free(tables: World) -> None:
    message_id = "00000000-0000-4000-8000-000000000001"
    messages(tables, 12_000, days=8)
    tables.sql("INSERT INTO claim SELECT id, topic, stored_at FROM message")
    tables.sql("INSERT INTO claim VALUES (%s, 'topic', now() - interval '8 days')", message_id)
    record = Record("topic", 0, 0, 1_700_000_000_123, None, b"{}", (("id", message_id.encode()),))
    with connection.database.connection_context():
        assert [one.stored_offset for one in store_all(store, [record]).duplicates] == [None]
        assert outcome(tables, "--retention-days", "7") == (12_000, 0)
        assert store_all(store, [record._replace(offset=1)]).stored == 1
    assert tables.sql("SELECT id::text FROM claim") == [(message_id,)]
    assert tables.sql("SELECT sum(messages) FROM message_count") == [(1,)]


def test_a_long_reader_postpones_it_and_writers_wait_for_neither(tables: World) -> None:
    messages(tables, 2, days=8)
    with tables.connect() as session, session.cursor() as reader, ThreadPoolExecutor(1) as pool:
        reader.execute("SELECT count(*) FROM message")
        retention = pool.submit(tables.run, "retention", "--retention-days", "7")
        number = 0
        while not retention.done():
            number += 1
            began = time.monotonic()
            with connection.database.connection_context():
                assert store_all(store, [_record(number)]).stored == 1
            assert time.monotonic() - began < 2 * BUSY
        assert (retention.result().returncode, "retention.postponed" in retention.result().stdout) == (0, True)
    assert number > 10
    assert tables.count() == 2 + number
    assert outcome(tables, "--retention-days", "7") == (2, 0)
    assert tables.count() == number


def _record(offset: int) -> Record:
    return Record("topic", 0, offset, 1_700_000_000_123, None, b"{}", ())


def test_a_database_that_is_away_is_one_sentence(world: World) -> None:
    done = world.run("retention", database_url="postgresql://backend@127.0.0.1:1/backend")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert world.run("retention").returncode == 5
