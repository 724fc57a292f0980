"""What is left of a span without the ranges that are stored already."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.store.spans import Source, Span, parts_without

_SOURCE = Source("topic", "id", 0)
_RANGES = st.sets(st.integers(0, 60)).map(lambda cuts: list(zip(*[iter(sorted(cuts))] * 2, strict=False)))


def test_a_batch_that_was_cut_differently_before() -> None:
    assert parts_without(Span(_SOURCE, 10, 20), [(5, 12), (15, 16)]) == [Span(_SOURCE, 12, 15), Span(_SOURCE, 16, 20)]


@given(st.integers(0, 60), st.integers(1, 30), _RANGES)
def test_each_offset_is_left_or_was_stored(first: int, length: int, stored: list[tuple[int, int]]) -> None:
    span = Span(_SOURCE, first, first + length)
    overlapping = [(low, high) for low, high in stored if low < span.next and high > span.first]
    left = [offset for part in parts_without(span, overlapping) for offset in range(part.first, part.next)]
    taken = {offset for low, high in stored for offset in range(low, high)}
    assert left == [offset for offset in range(span.first, span.next) if offset not in taken]
