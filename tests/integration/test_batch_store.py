"""What a worker relies on: the batch store in PostgreSQL, and the one in memory that unit tests use."""

import pytest

from tasks.message import Headers, Record
from tasks.store import batches
from tasks.store.batches import BatchStore, Dead, Stored
from tests.fakes import MemoryBatchStore
from tests.records import span_of, store_all


@pytest.fixture(params=["memory", "postgresql"])
def store(request: pytest.FixtureRequest) -> BatchStore:
    if request.param == "memory":
        return MemoryBatchStore()
    request.getfixturevalue("tables")
    return batches


def record(offset: int, value: bytes | None = b"{}", number: int | None = None) -> Record:
    """A record; with a `number` its sender gave it an id."""
    headers = () if number is None else (("id", f"00000000-0000-4000-8000-{number:012}".encode()),)
    return Record("topic", 0, offset, 1_700_000_000_123, None, value, headers)


def stored(store: BatchStore, *records: Record) -> Stored:
    return store_all(store, records)


def buried(store: BatchStore, killer: Record) -> Stored:
    """Store a record as a dead letter, without decoding it."""
    return store.store_batch(span_of([killer]), [killer], [], [Dead(killer, "killed_its_worker", "")])


def counts(outcome: Stored) -> tuple[int, int, int, list[str]]:
    return outcome.stored, outcome.redelivered, len(outcome.duplicates), [dead.reason for dead in outcome.dead]


def test_a_batch_that_is_read_again_changes_nothing(store: BatchStore) -> None:
    records = [record(0, number=1), record(1), record(2, None), record(3, b"not json")]
    assert counts(stored(store, *records)) == (3, 0, 0, ["not_json"])
    assert counts(stored(store, *records)) == (0, 4, 0, [])
    assert counts(stored(store, *records[2:], record(4))) == (1, 2, 0, [])


def test_the_same_message_from_another_place_is_a_duplicate(store: BatchStore) -> None:
    stored(store, record(0, b'{"n": 1}', number=1))
    outcome = stored(store, record(1, b'{"n":  1}', number=1), record(2, number=2), record(3, number=2))
    assert counts(outcome) == (1, 0, 2, [])
    places = [(one.message.offset, one.stored_partition, one.stored_offset) for one in outcome.duplicates]
    assert sorted(places) == [(1, 0, 0), (3, 0, 2)]


def test_a_different_message_with_a_known_id_is_a_dead_letter(store: BatchStore) -> None:
    outcome = stored(store, record(0, b'{"n": 1}', number=1), record(1, b'{"n": 2}', number=1))
    assert counts(outcome) == (1, 0, 0, ["id_conflict"])
    assert outcome.dead[0].record.offset == 1
    assert "a different message has the id 00000000-0000-4000-8000-000000000001" in outcome.dead[0].detail


def test_topics_have_their_own_ids(store: BatchStore) -> None:
    one = record(0, number=1)
    assert stored(store, one).stored == 1
    other = one._replace(topic="other", value=b'{"n": 2}')
    assert store_all(store, [other]).stored == 1


@pytest.mark.parametrize("headers", [(), (("id", b"00000000-0000-4000-8000-000000000001"),)])
def test_a_record_is_stored_or_dead_and_stays_so(store: BatchStore, headers: Headers) -> None:
    alive, killer = record(0)._replace(headers=headers), record(1)
    assert stored(store, alive).stored == 1
    assert counts(buried(store, alive)) == (0, 1, 0, [])
    assert counts(buried(store, killer)) == (0, 0, 0, ["killed_its_worker"])
    assert counts(stored(store, alive, killer, record(2))) == (1, 2, 0, [])


def test_a_recreated_topic_has_other_records_at_the_same_offsets(store: BatchStore) -> None:
    stored(store, record(0))
    buried(store, record(1))
    recreated = [record(offset)._replace(timestamp=1_700_000_999_000) for offset in (0, 1)]
    assert counts(stored(store, *recreated)) == (2, 0, 0, [])
