"""When a bridge has to end itself."""

from bridge.watchdog import complaint


def test_a_loop_that_turns_and_stores_is_well() -> None:
    assert complaint(now=100, turned_at=99, progressed_at=95, limit=10) == ""


def test_a_loop_that_hangs_or_stores_nothing_is_not() -> None:
    assert "not turned for 11 s" in complaint(now=100, turned_at=89, progressed_at=100, limit=10)
    assert "nothing was stored for 11 s without a known cause" in complaint(
        now=100, turned_at=100, progressed_at=89, limit=10
    )
