"""When a bridge has to end itself."""

from bridge.kafka.types import TopicPartition
from bridge.watchdog import Stall, complaint, stalled_too_long, stalls

_ONE, _OTHER = TopicPartition("orders", 0), TopicPartition("orders", 1)


def test_a_loop_that_turns_and_stores_is_well() -> None:
    assert complaint(now=100, turned_at=99, progressed_at=95, limit=10) == ""


def test_a_loop_that_hangs_or_stores_nothing_is_not() -> None:
    assert "not turned for 11 s" in complaint(now=100, turned_at=89, progressed_at=100, limit=10)
    assert "nothing was stored for 11 s without a known cause" in complaint(
        now=100, turned_at=100, progressed_at=89, limit=10
    )


def test_a_partition_of_which_nothing_is_returned_is_named_while_others_progress() -> None:
    stalled = stalls({}, {_ONE: 7, _OTHER: 3}, seconds=1)
    stalled = stalls(stalled, {_ONE: 7, _OTHER: 4}, seconds=10)
    assert stalled == {_ONE: Stall(7, 10), _OTHER: Stall(4, 0)}
    assert stalled_too_long(stalled, limit=10, recreated=()) == ""
    assert stalls(stalled, {}, seconds=1) == {}, "all are returned"
    stalled = stalls(stalled, {_ONE: 7, _OTHER: 5}, seconds=1)
    assert "returned nothing of orders/0 for 11 s" in stalled_too_long(stalled, limit=10, recreated=())


def test_the_clock_of_a_partition_stands_still_while_the_bridge_reads_nothing() -> None:
    stalled = stalls({_ONE: Stall(7, 6)}, {_ONE: 7}, seconds=0)
    assert stalls(stalled, {_ONE: 7}, seconds=1) == {_ONE: Stall(7, 7)}


def test_a_client_that_returns_nothing_of_a_recreated_topic_is_given_up_soon() -> None:
    stalled = {_ONE: Stall(0, 11)}
    assert stalled_too_long(stalled, limit=120, recreated=()) == ""
    assert stalled_too_long(stalled, limit=120, recreated=("orders",))
    assert stalled_too_long({_ONE: Stall(0, 9)}, limit=120, recreated=("orders",)) == ""
