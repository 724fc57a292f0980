"""Many who ask cost one question at a time, and nobody waits longer than it has patience."""

import threading

import pytest

from bridge.kafka.single_flight import SingleFlight
from tests.waiting import wait_until


def test_one_thread_asks_for_all_and_nobody_waits_too_long() -> None:
    asked: list[int] = []
    answered = threading.Event()

    def ask() -> int:
        asked.append(1)
        assert answered.wait(30)
        return len(asked)

    flight = SingleFlight(ask, fresh_seconds=0)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            flight.begin().result(0.01)
    assert len(asked) == 1
    last = flight.begin()
    answered.set()
    assert last.result(30) == 1
    assert wait_until(lambda: flight.begin().result(30) == 2, "it is asked again")


def test_an_answer_is_kept_while_it_is_fresh_and_an_error_too() -> None:
    asked: list[int] = []

    def ask() -> int:
        asked.append(1)
        raise ValueError("wrong")

    flight = SingleFlight(ask, fresh_seconds=600)
    for _ in range(3):
        with pytest.raises(ValueError, match="wrong"):
            flight.begin().result(30)
    assert len(asked) == 1
