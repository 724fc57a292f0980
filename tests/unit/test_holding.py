"""Why the bridge does not read, for how long, and when that is worth a line."""

from bridge.holding import Holding


def test_seconds_are_counted_for_each_reason() -> None:
    holding = Holding()
    holding.turn("in_flight_full", 1.0)
    holding.turn("in_flight_full", 2.0)
    holding.turn("redis_away", 4.0)
    holding.turn(None, 5.0)
    holding.turn("in_flight_full", 10.0)
    assert holding.seconds(12.0) == {"in_flight_full": 5.0, "redis_away": 1.0}


def test_moments_are_not_worth_a_line_and_a_lasting_reason_is_told_once() -> None:
    holding = Holding()
    holding.turn("in_flight_full", 0.0)
    assert holding.news(0.5) is None
    holding.turn(None, 0.6)
    assert holding.news(0.7) is None
    holding.turn("redis_away", 1.0)
    assert [holding.news(now) for now in (1.5, 2.0, 3.0)] == [None, ("redis_away",), None]
    holding.turn(None, 4.0)
    assert [holding.news(now) for now in (4.0, 5.0)] == [(None,), None]
