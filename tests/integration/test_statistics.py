"""Counts of stored messages: right at every age, and their rows bounded whatever the types are."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tasks.message import Record
from tasks.store import batches, connection, statistics
from tests.records import store_all
from tests.world import World

_START, _END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def _add(types: "Counter[str | None]") -> None:
    connection.database.execute_sql(statistics.ADD, statistics.addition("topic", types))


@pytest.fixture
def session(tables: World) -> Iterator[World]:
    with connection.database.connection_context():
        yield tables


def record(offset: int, kind: str, number: int | None = None) -> Record:
    headers = () if number is None else (("id", f"00000000-0000-4000-8000-{number:012}".encode()),)
    return Record("topic", 0, offset, 1_700_000_000_123, None, b'{"type": "%s"}' % kind.encode(), headers)


def age(world: World, interval: str) -> None:
    """Let this time pass for all that is counted."""
    world.sql(f"UPDATE message_count SET at = at - interval '{interval}'")


def counted() -> dict[str | None, int]:
    return dict(statistics.by_type(_START, _END, None).types)


def test_each_stored_message_is_counted_once(session: World) -> None:
    store_all(batches, [record(0, "a"), record(1, "b", number=1), record(2, "a")])
    store_all(batches, [record(1, "b", number=1), record(2, "a"), record(3, "a")])
    store_all(batches, [record(4, "b", number=1), record(5, "b", number=2)])
    assert counted() == {"a": 3, "b": 2}
    assert sum(count for _, count in statistics.buckets("minute", _START, _END, "a")) == 3
    assert statistics.rates()[0] == pytest.approx(5 / 60)


def test_old_counts_are_merged_and_say_the_same(session: World) -> None:
    for offset in range(0, 40, 2):
        store_all(batches, [record(offset, "a"), record(offset + 1, "b")])
        age(session, "7 minutes")
    before = [statistics.buckets(size, _START, _END, None) for size in ("hour", "day")], counted()
    statistics.condense()
    assert ([statistics.buckets(size, _START, _END, None) for size in ("hour", "day")], counted()) == before
    age(session, "3 days")
    days = [count for _, count in statistics.buckets("day", _START, _END, None)]
    statistics.condense()
    assert [count for _, count in statistics.buckets("day", _START, _END, None)] == days
    assert counted() == {"a": 20, "b": 20}
    assert session.sql("SELECT DISTINCT precision FROM message_count") == [("hour",)]
    assert session.sql("SELECT count(*) FROM message_count")[0][0] <= 8


def test_what_has_not_ended_is_not_merged_yet(session: World) -> None:
    store_all(batches, [record(0, "a")])
    statistics.condense()
    assert session.sql("SELECT precision FROM message_count") == [("exact",)]


def test_types_too_many_to_name_are_counted_together(session: World) -> None:
    for batch in range(8):
        types: Counter[str | None] = Counter({f"type {number}": 1 for number in range(batch * 200, batch * 200 + 230)})
        types["common"] = 5
        _add(types)
    found = statistics.by_type(_START, _END, None)
    assert (found.types[0], found.other) == (("common", 40), 8 * 31)
    session.sql("UPDATE message_count SET at = date_trunc('hour', now()) - interval '3 days'")
    statistics.condense()
    found = statistics.by_type(_START, _END, None)
    assert (found.types[0], found.other) == (("common", 40), 8 * 31 + 8 * 199 - 999)
    assert session.sql("SELECT count(*) FROM message_count WHERE precision = 'hour'") == [(1001,)]


def test_types_too_long_to_name_are_counted_together(session: World) -> None:
    _add(Counter({"t" * 200: 1, "u" * 201: 2, "v" * 5000: 3}))
    assert statistics.by_type(_START, _END, None) == ([("t" * 200, 1)], 5)


def test_the_rates_are_those_of_the_last_minutes(session: World) -> None:
    now = session.sql("SELECT now()")[0][0]
    _add(Counter({"a": 600}))
    age(session, "3 minutes")
    statistics.condense()
    one, five, fifteen = statistics.rates()
    assert one == 0
    assert 600 / 300 <= five <= 600 / 240
    assert 600 / 900 <= fifteen <= 600 / 840
    statistics.forget_before(now - timedelta(minutes=1))
    assert statistics.rates() == (0, 0, 0)
