"""The order in which the stream reads `message`, on real PostgreSQL."""

from datetime import UTC, datetime

from tasks.store import connection, feed, leaves
from tasks.store.feed import Position
from tests.world import World

_INSERT = (
    'INSERT INTO message (id, topic, "partition", "offset", produced_at, xact)'
    " SELECT gen_random_uuid(), 't', 0, n, now(), n::text::xid8 FROM generate_series(1, %s) n"
)


def test_numbers_of_transactions_are_ordered_as_numbers(tables: World) -> None:
    tables.sql(_INSERT, 300)
    position, seen = feed.parse("0-00000000-0000-0000-0000-000000000000"), list[Position]()
    while found := feed.after(position, 7):
        seen += [place for place, _ in found]
        position = found[-1][0]
    assert [place.xact for place in seen] == list(range(1, 301))
    assert feed.now() == position


def test_at_midnight_two_leaves_are_read_in_one_order(tables: World) -> None:
    tables.sql(_INSERT, 300)
    tables.sql("UPDATE message SET stored_at = now() - interval '1 day' WHERE \"offset\" % 7 < 3")
    position, seen = feed.parse("0-00000000-0000-0000-0000-000000000000"), list[int]()
    while found := feed.after(position, 7):
        seen += [place.xact for place, _ in found]
        position = found[-1][0]
    assert seen == list(range(1, 301))
    assert feed.now() == position
    tables.sql("DELETE FROM message WHERE xact::text::int > 296")
    assert feed.now().xact == 296


def test_an_index_serves_the_reader_of_what_is_new(tables: World) -> None:
    tables.sql(_INSERT, 300)
    tables.sql(
        "INSERT INTO message SELECT gen_random_uuid(), m.topic, 0, 0, m.produced_at"
        " FROM message m, generate_series(1, 50)"
    )
    tables.sql("ANALYZE message")
    leaf = next(leaves.newest_first(None, datetime.now(UTC)))
    values = ("290", feed.now().id, "1000000", leaf.begin, leaf.end, 500)
    plan = connection.database.execute_sql(f"EXPLAIN {feed._AFTER}", values).fetchall()
    text = "\n".join(row[0] for row in plan)
    assert "Index Scan using" in text and "xact_id_idx" in text, text
    assert "Sort" not in text, text
