"""What becomes of a batch that was not stored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.retries import Decision, backoff, decide
from tasks.claim_check import Outcome, Result


@pytest.mark.parametrize(
    ("outcome", "records", "kills", "expected"),
    [
        ("stored", 1, 0, "done"),
        ("stored", 100, 2, "done"),
        ("failed", 1, 0, "retry"),
        ("failed", 100, 9, "retry"),
        ("killed", 2, 1, "split"),
        ("killed", 100, 1, "split"),
        ("killed", 1, 1, "retry"),
        ("killed", 1, 2, "retry"),
        ("killed", 1, 3, "dead_letter"),
    ],
)
def test_decisions(outcome: Outcome, records: int, kills: int, expected: Decision) -> None:
    assert decide(Result("b", 1, outcome), records, kills) == expected


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_are_bounded_however_often_it_failed(attempt: int, jitter: float) -> None:
    assert 0.05 <= backoff(attempt, jitter) <= 2.0


def test_waits_double_and_are_spread() -> None:
    assert [backoff(attempt, 0.0) for attempt in (1, 2, 3)] == [0.05, 0.1, 0.2]
    assert len({backoff(3) for _ in range(20)}) > 1
