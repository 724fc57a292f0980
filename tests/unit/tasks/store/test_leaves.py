"""Which leaves are made: every moment from yesterday to a week ahead is in exactly one."""

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tasks.store.leaves import Leaf, missing

_NOW = datetime(2026, 3, 29, 13, 5, tzinfo=UTC)
_DAY = timedelta(days=1)


def day(number: int) -> datetime:
    """Midnight of so many days after today."""
    return datetime(2026, 3, 29, tzinfo=UTC) + number * _DAY


def test_at_first_there_is_one_for_each_day_from_yesterday_on() -> None:
    assert missing([], _NOW) == [(day(number), day(number + 1)) for number in range(-1, 8)]


def test_with_many_there_are_longer_ones() -> None:
    there = [Leaf("", day(number), day(number + 1)) for number in range(-100, 0)]
    assert missing(there, _NOW) == [(day(0), day(4)), (day(4), day(8))]


@given(st.sets(st.integers(-40, 20), max_size=30).map(sorted), st.floats(-10, 10))
def test_leaves_never_overlap_and_leave_no_gap(cuts: list[int], moved: float) -> None:
    there = [Leaf("", day(first), day(after)) for first, after in zip(cuts[::2], cuts[1::2], strict=False)]
    now = _NOW + moved * _DAY  # a clock may jump
    bounds = sorted([(leaf.begin, leaf.end) for leaf in there] + missing(there, now))
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(bounds))
    for hours in range(-24, 7 * 24):
        moment = now + timedelta(hours=hours)
        assert sum(begin <= moment < end for begin, end in bounds) == 1
    assert missing([*there, *(Leaf("", *one) for one in missing(there, now))], now) == []
