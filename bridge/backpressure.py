"""Why the bridge does not read some or all partitions, and for how long, by reason. Pure."""

from collections import defaultdict
from typing import Literal, Protocol

from tasks.config.settings import Settings

Reason = Literal["redis_away", "database_away", "in_flight_full", "bytes_full", "ordering", "dead_letter_limit"]

_REPORT_AFTER_SECONDS = 1.0  # the batches in flight fill up for moments all the time


class InFlight(Protocol):
    """The batches in flight; see bridge/handover.py."""

    available: bool

    def __len__(self) -> int: ...

    def size(self) -> int:
        """Bytes in flight."""
        ...

    def failure(self) -> str:
        """Why batches are not being stored; empty if no attempt has failed."""
        ...


def reason(settings: Settings, in_flight: InFlight, waiting_bytes: int, positions_late: bool) -> Reason | None:
    """Why the bridge must not read now; None if it may.

    `waiting_bytes` are those of records that wait for a batch. `positions_late`: PostgreSQL should have told by now how
    far partitions are stored.
    """
    if not in_flight.available:
        return "redis_away"
    if len(in_flight) >= settings.in_flight:
        return "database_away" if in_flight.failure() else "in_flight_full"
    if in_flight.size() >= settings.in_flight_bytes:
        return "bytes_full"
    if positions_late and waiting_bytes:
        return "database_away"
    return "ordering" if waiting_bytes >= settings.in_flight_bytes else None


class Backpressure:
    """The current reason, since when it holds, and the seconds spent in each reason."""

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self.since = 0.0
        self.reported: Reason | None = None  # the reason that was logged last; None: that the bridge reads
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @property
    def reads(self) -> bool:
        """Whether the bridge reads."""
        return self.reason is None

    def update(self, reason: Reason | None, now: float) -> None:
        """Set the reason of this turn of the loop; None: the bridge reads."""
        if reason != self.reason:
            if self.reason is not None:
                self._seconds[self.reason] += now - self.since
            self.reason, self.since = reason, now

    def changed(self, now: float) -> bool:
        """Whether `reported` has changed: a lasting reason deserves a log line, and so does its end."""
        lasting = self.reason if self.reason and now - self.since >= _REPORT_AFTER_SECONDS else None
        if lasting == self.reported or (lasting is None and self.reason == self.reported):
            return False
        self.reported = lasting
        return True

    def seconds(self, now: float) -> dict[str, float]:
        """The seconds spent in each reason until now."""
        spent = dict(self._seconds)
        if self.reason is not None:
            spent[self.reason] = spent.get(self.reason, 0.0) + now - self.since
        return spent
