"""What may travel at the same time, by setting."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from bridge.ordering import Kind, Ordering


class Keyed(NamedTuple):
    key: bytes | None


def keyed(*keys: bytes | None) -> list[Keyed]:
    return [Keyed(key) for key in keys]


def allowed(kind: Kind, in_flight: list[Keyed], batch: list[Keyed]) -> int:
    ordering: Ordering[str] = Ordering(kind)
    ordering.handed_over("p", "first", in_flight)
    assert ordering.allowed("other", batch) == len(batch)
    return ordering.allowed("p", batch)


def test_without_order_everything_may_go() -> None:
    assert allowed("none", keyed(b"a"), keyed(b"a", b"b")) == 2


def test_a_partition_waits_for_its_batch() -> None:
    assert allowed("partition", keyed(b"a"), keyed(b"b")) == 0


def test_a_batch_ends_before_a_key_in_flight() -> None:
    assert allowed("key", keyed(b"a", None), keyed(b"b", None, b"c", b"a", b"d")) == 3


def test_a_small_part_of_a_batch_waits_rather_than_travel_alone() -> None:
    assert allowed("key", keyed(b"a"), keyed(b"b", b"a", b"c", b"d", b"e")) == 0
    assert allowed("key", keyed(b"a"), keyed(b"b", b"a", b"c", b"d")) == 1


def test_the_keys_of_a_halved_batch_are_free_when_both_halves_are_stored() -> None:
    ordering: Ordering[str] = Ordering("key")
    ordering.handed_over("p", "whole", keyed(b"a", b"b"))
    ordering.split("p", "whole", ["left", "right"])
    ordering.done("p", "left")
    assert ordering.allowed("p", keyed(b"a")) == 0
    ordering.done("p", "right")
    assert ordering.allowed("p", keyed(b"a")) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.sampled_from([b"a", b"b", b"c", None]), max_size=6))))
def test_no_key_is_ever_in_two_batches(turns: list[tuple[int, list[bytes | None]]]) -> None:
    ordering: Ordering[str] = Ordering("key")
    in_flight: dict[str, set[bytes]] = {}
    for number, (finished, keys) in enumerate(turns):
        for name in list(in_flight)[:finished]:
            ordering.done("p", name)
            del in_flight[name]
        batch = keyed(*keys)
        batch = batch[: ordering.allowed("p", batch)]
        going = {record.key for record in batch if record.key is not None}
        assert not any(going & busy for busy in in_flight.values())
        if batch:
            ordering.handed_over("p", str(number), batch)
            in_flight[str(number)] = going
