"""Storing a batch in real PostgreSQL: each message exactly once, whatever its neighbours are."""

import orjson
import pytest

from tasks import database, store
from tasks.envelope import Record
from tasks.persist import decode_all
from tasks.store import Stored
from tests.world import World


def record(offset: int, value: bytes | None, key: bytes | None = None) -> Record:
    return Record("topic", 0, offset, 1_700_000_000_123, key, value, ())


def stored(*records: Record) -> Stored:
    messages, dead = decode_all(records)
    with database.database.connection_context():
        return store.store_batch("topic", 0, records, messages, dead)


def with_id(number: int, **fields: object) -> bytes:
    return orjson.dumps({"id": f"00000000-0000-4000-8000-{number:012}", **fields})


def test_every_column_comes_back_as_it_was(tables: World) -> None:
    value = b'{"id": "00000000-0000-4000-8000-000000000001", "type": "a\\tb\\\\c", "n": 1.10, "s": "\\u00e9\\n"}'
    headers = (("h", b"1"), ("h", b"\xff"))
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
            '{"h": ["1", "\\\\xff"]}',
            "é\n",
            "1.10",
            "1700000000.123000",
        )
    ]


def test_a_batch_stored_again_changes_nothing(tables: World) -> None:
    records = [record(0, with_id(1)), record(1, b'{"no": "id"}'), record(2, None)]
    assert stored(*records).stored == 3
    again = stored(*records)
    assert (again.stored, again.duplicates, again.dead) == (0, 3, [])
    assert tables.count() == 3


def test_old_and_new_messages_in_one_batch(tables: World) -> None:
    stored(record(0, with_id(1)))
    mixed = stored(record(0, with_id(1)), record(1, with_id(2)), record(2, with_id(2)))
    assert (mixed.stored, mixed.duplicates) == (1, 2)
    assert tables.count() == 2


def test_a_different_message_with_a_known_id_is_a_dead_letter(tables: World) -> None:
    stored(record(0, with_id(1, total=1)))
    outcome = stored(record(1, with_id(1, total=2)), record(2, with_id(2)))
    assert [dead.reason for dead in outcome.dead] == ["id_conflict"]
    assert tables.sql("SELECT payload->>'total' FROM message ORDER BY id") == [("1",), (None,)]
    assert [bytes(row[0]) for row in tables.sql("SELECT value FROM dead_letter")] == [with_id(1, total=2)]


@pytest.mark.parametrize("place", [0, 2, 4])
def test_what_only_postgresql_refuses_hurts_no_neighbour(tables: World, place: int) -> None:
    values = [with_id(number) for number in range(4)]
    # A number that every decoder takes, and that is too large for PostgreSQL's numeric.
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
        b'{"type": "' + b"t" * 2000 + b'"}': "too_long",
    }
    outcome = stored(*(record(offset, value) for offset, value in enumerate(poison)), record(99, with_id(1)))
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
