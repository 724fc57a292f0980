"""When a bridge has to end itself."""

from bridge.kafka.types import TopicPartition
from bridge.watchdog import Stall, complaint, stalls


def test_a_loop_that_turns_and_stores_is_well() -> None:
    assert complaint(now=100, turned_at=99, progressed_at=95, limit=10, stalled={}) == ""


def test_a_loop_that_hangs_or_stores_nothing_is_not() -> None:
    assert "not turned for 11 s" in complaint(now=100, turned_at=89, progressed_at=100, limit=10, stalled={})
    assert "nothing was stored for 11 s without a known cause" in complaint(
        now=100, turned_at=100, progressed_at=89, limit=10, stalled={}
    )


def test_a_partition_of_which_nothing_is_returned_is_named_while_others_progress() -> None:
    one, other = TopicPartition("orders", 0), TopicPartition("orders", 1)
    stalled = stalls({}, {one: 7, other: 3}, now=50)
    stalled = stalls(stalled, {one: 7, other: 4}, now=60)
    assert stalled == {one: Stall(7, 50), other: Stall(4, 60)}
    assert complaint(now=60, turned_at=60, progressed_at=60, limit=10, stalled=stalled) == ""
    assert "returned nothing of orders/0 for 11 s" in complaint(61, 61, 61, 10, stalled)
    assert stalls(stalled, {}, now=62) == {}, "all are returned, or nothing is asked for"
