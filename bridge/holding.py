"""Why the bridge reads nothing at the moment, or not all, and for how long it did so for each reason. Pure."""

from collections import defaultdict
from typing import Literal

Reason = Literal["redis_away", "database_away", "in_flight_full", "bytes_full", "ordering", "dead_letter_flood"]

_WORTH_SAYING_SECONDS = 1.0  # in-flight batches fill up for moments all the time


class Holding:
    """The present reason and the seconds spent in each."""

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self.since = 0.0
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._said: Reason | None = None

    def turn(self, reason: Reason | None, now: float) -> None:
        """Note the reason of this turn of the loop; None: the bridge reads."""
        if reason != self.reason:
            if self.reason is not None:
                self._seconds[self.reason] += now - self.since
            self.reason, self.since = reason, now

    def news(self, now: float) -> tuple[Reason | None] | None:
        """The reason, if it is worth a line and differs from the one told last; (None,) once it is over."""
        lasting = self.reason if self.reason and now - self.since >= _WORTH_SAYING_SECONDS else None
        if lasting == self._said or (lasting is None and self.reason == self._said):
            return None
        self._said = lasting
        return (lasting,)

    def seconds(self, now: float) -> dict[str, float]:
        """Seconds spent in each reason until now."""
        spent = dict(self._seconds)
        if self.reason is not None:
            spent[self.reason] = spent.get(self.reason, 0.0) + now - self.since
        return spent
