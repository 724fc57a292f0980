"""Why the bridge does not read, for how long, and when that is worth a line."""

from dataclasses import dataclass

import pytest

from bridge.backpressure import Backpressure, reason
from tasks.config import settings

LIMITS = settings.load({}, {"IN_FLIGHT": "2", "IN_FLIGHT_BYTES": "100"})


@dataclass
class InFlight:
    available: bool = True
    batches: int = 0
    bytes: int = 0
    failed: str = ""

    def __len__(self) -> int:
        return self.batches

    def size(self) -> int:
        return self.bytes

    def failure(self) -> str:
        return self.failed


@pytest.mark.parametrize(
    ("in_flight", "waiting_bytes", "expected"),
    [
        (InFlight(), 0, None),
        (InFlight(batches=1, bytes=99), 99, None),
        (InFlight(available=False), 0, "redis_away"),
        (InFlight(batches=2), 0, "in_flight_full"),
        (InFlight(batches=2, failed="PostgreSQL does not respond"), 0, "database_away"),
        (InFlight(batches=1, bytes=100), 0, "bytes_full"),
        (InFlight(batches=1), 100, "ordering"),
    ],
)
def test_the_bridge_reads_within_its_limits(in_flight: InFlight, waiting_bytes: int, expected: str | None) -> None:
    assert reason(LIMITS, in_flight, waiting_bytes, False) == expected


def test_records_wait_for_postgresql_to_tell_how_far_partitions_are_stored() -> None:
    assert reason(LIMITS, InFlight(), 1, True) == "database_away"
    assert reason(LIMITS, InFlight(), 0, True) is None


def test_seconds_are_counted_for_each_reason() -> None:
    backpressure = Backpressure()
    backpressure.update("in_flight_full", 1.0)
    backpressure.update("in_flight_full", 2.0)
    backpressure.update("redis_away", 4.0)
    backpressure.update(None, 5.0)
    backpressure.update("in_flight_full", 10.0)
    assert backpressure.seconds(12.0) == {"in_flight_full": 5.0, "redis_away": 1.0}


def test_short_backpressure_is_not_reported_and_a_lasting_reason_is_reported_once() -> None:
    backpressure = Backpressure()
    backpressure.update("in_flight_full", 0.0)
    assert not backpressure.changed(0.5)
    backpressure.update(None, 0.6)
    assert not backpressure.changed(0.7)
    backpressure.update("redis_away", 1.0)
    assert [backpressure.changed(now) for now in (1.5, 2.0, 3.0)] == [False, True, False]
    assert backpressure.reported == "redis_away"
    backpressure.update(None, 4.0)
    assert [backpressure.changed(now) for now in (4.0, 5.0)] == [True, False]
    assert backpressure.reported is None
