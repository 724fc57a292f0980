"""When a partition is quarantined because too many of its records become dead letters."""

from tasks.share_limit import ShareLimit


def over(limit: int, *batches: tuple[int, int]) -> list[bool]:
    limited: ShareLimit[str] = ShareLimit(limit)
    return [limited.add("p", records, dead) for records, dead in batches]


def test_a_few_bad_records_are_below_the_limit() -> None:
    assert over(50, (99, 99), (1000, 10)) == [False, False]


def test_more_than_the_limit_among_enough_records_is() -> None:
    assert over(50, (50, 50), (50, 1), (10, 0)) == [False, True, False]


def test_only_recent_records_count() -> None:
    assert over(50, *[(1000, 0)] * 50, (1000, 990))[-1]


def test_a_limit_of_100_stops_nothing() -> None:
    assert not any(over(100, (5000, 5000), (5000, 5000)))


def test_partitions_are_told_apart_and_forgotten() -> None:
    limited: ShareLimit[str] = ShareLimit(50)
    assert limited.add("a", 100, 100)
    assert not limited.add("b", 100, 0)
    assert limited.share("a") == 1.0
    limited.forget("a")
    assert not limited.add("a", 50, 50)
