"""Batches keep every record, in order, within their bounds."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from bridge.batches import Batcher


@dataclass
class Polled:
    offset: int
    serialized_value_size: int
    serialized_key_size: int
    serialized_header_size: int

    @property
    def size(self) -> int:
        return self.serialized_key_size + self.serialized_value_size + self.serialized_header_size


LINGER = 1.0


def polled(*sizes: int, first: int = 0) -> list[Polled]:
    """Records whose bytes are in turns those of a value, of a key, and of headers; -1 where there is none."""
    places = enumerate(sizes, first)
    return [Polled(offset, *(size if part == offset % 3 else -1 for part in range(3))) for offset, size in places]


def batcher(records: int = 10, size: int = 1000) -> Batcher[str, Polled]:
    return Batcher(records, size, LINGER)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(-1, 400), min_size=1, max_size=15))),
    st.integers(1, 7),
    st.integers(1, 900),
)
def test_nothing_is_lost_reordered_or_too_large(
    arrivals: list[tuple[str, list[int]]], most_records: int, most_bytes: int
) -> None:
    made = batcher(most_records, most_bytes)
    came: dict[str, list[Polled]] = {}
    went: dict[str, list[Polled]] = {}
    for moment, (partition, sizes) in enumerate(arrivals):
        records = polled(*sizes, first=len(came.get(partition, ())))
        came.setdefault(partition, []).extend(records)
        made.add({partition: records}, moment)
    now = float(len(arrivals))
    while len(made):
        now += LINGER
        for partition, batch in made.cut(now, most=10_000):
            went.setdefault(partition, []).extend(batch)
            assert 1 <= len(batch) <= most_records
            assert len(batch) == 1 or sum(record.size for record in batch) <= most_bytes
    assert went == came
    assert made.due_in(now) is None


def test_a_lone_record_waits_for_company_no_longer_than_linger() -> None:
    made = batcher()
    made.add({"a": polled(1)}, now=5.0)
    assert made.due_in(5.25) == 0.75
    assert list(made.cut(5.9, most=9)) == []
    assert list(made.cut(6.0, most=9)) == [("a", polled(1))]


def test_one_batch_need_not_wait_where_nothing_is_in_flight() -> None:
    made = batcher()
    made.add({"a": polled(1, 1)}, now=0.0)
    made.add({"b": polled(1)}, now=0.25)
    assert list(made.cut(0.5, most=9, at_once=True)) == [("a", polled(1, 1))]
    assert made.due_in(0.5) == 0.75


def test_a_full_batch_waits_for_nothing_and_its_rest_waits_anew() -> None:
    made = batcher(records=3)
    made.add({"a": polled(1, 1, 1, 1)}, now=0.0)
    assert made.due_in(0.0) == 0
    assert [len(batch) for _, batch in made.cut(0.5, most=9)] == [3]
    assert made.due_in(0.5) == LINGER


def test_bytes_fill_a_batch_too() -> None:
    made = batcher(size=100)
    made.add({"a": polled(60, 60)}, now=0.0)
    assert [len(batch) for _, batch in made.cut(0.0, most=9)] == [1]


def test_no_more_than_asked_and_the_longest_waiting_first() -> None:
    made = batcher(records=2)
    made.add({"a": polled(1, 1)}, now=1.0)
    made.add({"b": polled(1, 1)}, now=0.0)
    assert [partition for partition, _ in made.cut(2.0, most=1)] == ["b"]
    assert [partition for partition, _ in made.cut(2.0, most=1)] == ["a"]


def test_a_partition_that_was_taken_is_forgotten() -> None:
    made = batcher()
    made.add({"a": polled(1), "b": polled(1)}, now=0.0)
    made.drop("a")
    assert [partition for partition, _ in made.cut(9.0, most=9)] == ["b"]


def test_what_may_not_go_yet_stays_in_order_and_lets_others_pass() -> None:
    made = batcher(records=10)
    made.add({"a": polled(1, 1, 1), "b": polled(1)}, now=0.0)
    assert list(made.cut(5.0, 9, lambda partition, batch: 2 if partition == "a" and len(batch) == 3 else 0)) == [
        ("a", polled(1, 1))
    ]
    assert len(made) == 2
    assert [batch for _, batch in made.cut(9.0, most=9)] == [polled(1), polled(1, first=2)]


def test_a_stopped_partition_waits_until_it_may_go_on() -> None:
    made = batcher()
    made.add({"a": polled(7)}, now=0.0)
    made.pause("a")
    assert (list(made.cut(5.0, most=9)), made.due_in(5.0), made.size()) == ([], None, 0)
    made.resume("a")
    # 500 for the record, 7 for its value, and the client's -1 for its key and for its headers.
    assert (made.size(), list(made.cut(5.0, most=9))) == (505, [("a", polled(7))])


def test_the_first_that_waits_is_known_until_it_is_cut() -> None:
    waiting = batcher()
    assert waiting.first("a") is None
    waiting.add({"a": polled(1, 1, first=7)}, now=0.0)
    assert waiting.first("a") == 7
    assert len(list(waiting.cut(LINGER, most=1))) == 1
    assert waiting.first("a") is None


def test_tombstones_that_wait_take_memory_too() -> None:
    made = batcher()
    made.add({"a": polled(*[-1] * 1000)}, now=0)
    assert made.size() > 100_000
