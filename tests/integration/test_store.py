"""Storing a batch in real PostgreSQL: each message exactly once, whatever its neighbours are."""

import peewee
import pytest

from tasks.message import Headers, Record
from tasks.store import batches, connection
from tasks.store.batches import Dead, Stored
from tests.records import span_of, store_all
from tests.world import World


def record(offset: int, value: bytes | None, key: bytes | None = None) -> Record:
    return Record("topic", 0, offset, 1_700_000_000_123, key, value, ())


def named(offset: int, number: int, value: bytes = b"{}") -> Record:
    """A record whose sender gave it an id."""
    return record(offset, value)._replace(headers=(("id", f"00000000-0000-4000-8000-{number:012}".encode()),))


def buried(one: Record, seconds: float = 60) -> Stored:
    with connection.database.connection_context():
        killer = Dead(one, "killed_its_worker", "it ended its worker")
        return batches.store_batch(span_of([one]), [one], [], [killer], seconds)


def stored(*records: Record) -> Stored:
    with connection.database.connection_context():
        return store_all(batches, records)


def test_every_column_comes_back_as_it_was(tables: World) -> None:
    value = b'{"type": "a\\tb\\\\c", "n": 1.10, "s": "\\u00e9\\n"}'
    headers = (("h", b"1"), ("h", b"\xff"), ("message-id", b"00000000-0000-4000-8000-000000000001"))
    stored(Record("topic", 0, 7, 1_700_000_000_123, "schlüssel".encode(), value, headers))
    rows = tables.sql(
        'SELECT id::text, topic, "partition", "offset", type, key, headers::text, payload->>\'s\','
        " payload->>'n', extract(epoch FROM produced_at)::text FROM message"
    )
    assert rows == [
        (
            "00000000-0000-4000-8000-000000000001",
            "topic",
            0,
            7,
            "a\tb\\c",
            "schlüssel",
            '{"h": ["1", "\\\\xff"], "message-id": "00000000-0000-4000-8000-000000000001"}',
            "é\n",
            "1.10",
            "1700000000.123000",
        )
    ]


def test_a_different_message_with_a_known_id_is_a_dead_letter(tables: World) -> None:
    stored(named(0, 1, b'{"total": 1}'))
    outcome = stored(named(1, 1, b'{"total": 2}'), named(2, 2))
    assert [(dead.reason, dead.counts()) for dead in outcome.dead] == [("id_conflict", False)]
    assert tables.sql("SELECT payload->>'total' FROM message ORDER BY id") == [("1",), (None,)]
    assert [bytes(row[0]) for row in tables.sql("SELECT value FROM dead_letter")] == [b'{"total": 2}']


def test_what_retention_deletes_meanwhile_is_no_reason_to_drop_a_record(tables: World) -> None:
    stored(named(0, 1, b'{"total": 1}'))
    # Like retention, between the two queries for the known id.
    tables.sql("""
        CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM message WHERE "offset" = 0; DELETE FROM claim WHERE stored_at < now(); RETURN NULL;
        END $$;
        CREATE TRIGGER forget AFTER INSERT ON claim FOR EACH STATEMENT EXECUTE FUNCTION forget()
    """)
    outcome = stored(named(1, 1, b'{"total": 2}'))
    assert (outcome.stored, outcome.redelivered, outcome.dead) == (1, 0, [])
    assert tables.sql("SELECT payload->>'total' FROM message") == [("2",)]


def test_a_dead_record_read_again_stays_dead(tables: World) -> None:
    """Even if it could be stored by now: the dead letter may have been redriven."""
    killer = record(1, b'{"n": 1}')
    buried(killer)
    outcome = stored(record(0, b"{}"), killer, record(2, b"{}"))
    assert (outcome.stored, outcome.redelivered, outcome.dead) == (2, 1, [])
    assert tables.sql('SELECT "offset" FROM message ORDER BY 1') == [(0,), (2,)]
    recreated = killer._replace(timestamp=1_700_000_999_000)
    assert stored(recreated).stored == 1, "another record, of a topic that was recreated"


@pytest.mark.parametrize("headers", [(), (("id", b"00000000-0000-4000-8000-000000000001"),)])
def test_a_stored_record_is_not_buried(tables: World, headers: Headers) -> None:
    one = record(1, b'{"n": 1}')._replace(headers=headers)
    stored(one)
    assert buried(one) == Stored(0, 1, [], [])
    assert tables.sql("SELECT count(*) FROM dead_letter") == [(0,)]
    assert buried(one._replace(offset=2)).dead[0].record.offset == 2


def test_a_burial_waits_for_an_attempt_that_is_still_under_way(tables: World) -> None:
    """A worker that was frozen while it stored the record may go on."""
    with tables.connect() as attempt, attempt.cursor() as cursor:
        cursor.execute("INSERT INTO span SELECT int8range((1::bigint << 44) + 1, (1::bigint << 44) + 2)")
        with pytest.raises(peewee.OperationalError, match="lock timeout"):
            buried(record(1, b"{}"), seconds=0.5)
    assert buried(record(1, b"{}")).dead


@pytest.mark.parametrize("place", [0, 2, 4])
def test_what_only_postgresql_refuses_hurts_no_neighbour(tables: World, place: int) -> None:
    values = [b'{"number": %d}' % number for number in range(4)]
    # A number that every decoder accepts, and that is too large for PostgreSQL's numeric.
    values.insert(place, b'{"n": 0.' + b"0" * 20_000 + b"1}")
    outcome = stored(*(record(offset, value) for offset, value in enumerate(values)))
    assert outcome.stored == 4
    assert [(dead.record.offset, dead.reason) for dead in outcome.dead] == [(place, "refused_by_postgresql")]
    assert tables.sql('SELECT "offset", value FROM dead_letter')[0][0] == place


def test_poison_of_every_kind_keeps_its_bytes_and_a_reason(tables: World) -> None:
    poison = {
        b"\xff\xfe": "invalid_utf8",
        b"not json": "not_json",
        b"": "not_json",
        b'{"a": NaN}': "not_json",
        b'{"a": "\\u0000"}': "nul",
        b'{"\\u0000": 1}': "nul",
        b'{"a": "\\ud800"}': "not_json",
        b"[" * 5000 + b"]" * 5000: "not_json",
    }
    outcome = stored(*(record(offset, value) for offset, value in enumerate(poison)), record(99, b"{}"))
    assert outcome.stored == 1
    rows = tables.sql('SELECT value, reason FROM dead_letter ORDER BY "offset"')
    assert [(bytes(value), reason) for value, reason in rows] == list(poison.items())


def test_dead_letters_are_kept_once(tables: World) -> None:
    for _ in range(2):
        stored(record(0, b"not json"))
    assert tables.count() == 1


def test_records_without_id_of_a_topic_made_anew_are_not_taken_for_the_old_ones(tables: World) -> None:
    stored(Record("topic", 0, 0, 1_700_000_000_000, None, b"1", ()))
    stored(Record("topic", 0, 0, 1_700_000_999_000, None, b"2", ()))
    assert tables.count() == 2
