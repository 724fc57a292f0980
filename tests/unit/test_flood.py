"""When a partition is stopped because too much of it goes to dead_letter."""

from bridge.flood import Flood


def over(limit: int, *batches: tuple[int, int]) -> list[bool]:
    flood: Flood[str] = Flood(limit)
    return [flood.add("p", records, dead) for records, dead in batches]


def test_a_few_bad_records_are_no_flood() -> None:
    assert over(50, (99, 99), (1000, 10)) == [False, False]


def test_more_than_the_limit_among_enough_records_is() -> None:
    assert over(50, (50, 50), (50, 1), (10, 0)) == [False, True, False]


def test_only_recent_records_count() -> None:
    assert over(50, *[(1000, 0)] * 50, (1000, 990))[-1]


def test_a_limit_of_100_stops_nothing() -> None:
    assert not any(over(100, (5000, 5000), (5000, 5000)))


def test_partitions_are_told_apart_and_forgotten() -> None:
    flood: Flood[str] = Flood(50)
    assert flood.add("a", 100, 100)
    assert not flood.add("b", 100, 0)
    assert flood.share("a") == 1.0
    flood.forget("a")
    assert not flood.add("a", 50, 50)
