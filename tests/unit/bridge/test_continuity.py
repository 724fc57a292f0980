"""What counts as lost: offsets below the first one that Kafka still has, and that were not returned."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from bridge.continuity import Continuity


@dataclass
class _Record:
    offset: int


def records(*offsets: int) -> list[_Record]:
    return [_Record(offset) for offset in offsets]


def begun(stored_until: int = 0) -> Continuity[str]:
    made: Continuity[str] = Continuity()
    made.assign("p", 0)
    made.begin("p", stored_until)
    return made


def test_what_lies_between_what_is_stored_and_the_first_record_was_deleted() -> None:
    found = begun(50)
    found.read("p", records(300, 301), now=1)
    assert found.losses("p", 300, asked_at=2, reads=True) == [(50, 300)]
    assert found.losses("p", 300, asked_at=3, reads=True) == []


def test_records_that_were_read_before_it_was_known_what_is_stored() -> None:
    found: Continuity[str] = Continuity()
    found.assign("p", 0)
    found.read("p", records(300, 301), now=1)
    found.begin("p", 50)
    assert found.losses("p", 300, asked_at=2, reads=True) == [(50, 300)]


def test_compaction_and_transactions_leave_gaps_that_are_no_loss() -> None:
    found = begun()
    found.read("p", records(0, 2, 3, 9), now=1)
    found.read("p", records(12), now=1)
    found.passed("p", 14, now=1)
    assert found.losses("p", 0, asked_at=2, reads=True) == []


def test_a_gap_within_one_poll_is_a_loss_as_far_as_it_was_deleted() -> None:
    found = begun()
    found.read("p", records(0, 1, 300), now=1)
    assert found.losses("p", 200, asked_at=2, reads=True) == [(2, 200)]


def test_a_gap_is_judged_by_a_later_request_only() -> None:
    found = begun()
    found.read("p", records(300), now=5)
    assert found.losses("p", 0, asked_at=4, reads=True) == []
    assert found.losses("p", 300, asked_at=6, reads=True) == [(0, 300)]


def test_deleted_records_with_none_after_them_are_lost_once_the_client_returns_nothing() -> None:
    found = begun(50)
    assert found.losses("p", 300, asked_at=1, reads=True) == []  # they may be in the client
    assert found.losses("p", 300, asked_at=2, reads=False) == []  # they may still be: it must not return them
    assert found.losses("p", 300, asked_at=3, reads=True) == []
    assert found.losses("p", 300, asked_at=4, reads=True) == [(50, 300)]
    found.read("p", records(300), now=5)
    assert found.losses("p", 300, asked_at=6, reads=True) == []


def test_records_from_before_are_reported_and_not_lost() -> None:
    found = begun()
    assert found.read("p", records(0, 1, 2), now=1) is None
    assert found.read("p", records(0), now=2) == 3
    assert found.losses("p", 0, asked_at=3, reads=True) == []


def test_a_restart_forgets_gaps() -> None:
    found = begun(50)
    found.read("p", records(100), now=1)
    found.restart("p", 0)
    found.read("p", records(0), now=2)
    assert found.losses("p", 0, asked_at=3, reads=True) == []


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.data())
def test_every_deleted_record_is_lost_or_was_returned(sizes: list[int], data: st.DataObject) -> None:
    """Kafka deletes up to some offset now and then; the client returns what is left, in polls of some size."""
    found, end, deleted, now = begun(), sum(sizes), 0, 0.0
    returned: set[int] = set()
    lost: list[int] = []
    position = 0
    for size in sizes:
        deleted = max(deleted, data.draw(st.integers(0, end)))
        position = max(position, deleted)
        polled = list(range(position, min(position + size, end)))
        now += 1
        if polled:
            found.read("p", records(*polled), now)
            position = polled[-1] + 1
            returned.update(polled)
        now += 1
        lost += [offset for loss in found.losses("p", deleted, now, reads=True) for offset in range(*loss)]
    for _ in range(2):
        now += 1
        lost += [offset for loss in found.losses("p", deleted, now, reads=True) for offset in range(*loss)]
    assert len(lost) == len(set(lost))
    assert not returned & set(lost)
    assert set(range(deleted)) == (returned & set(range(deleted))) | set(lost)
