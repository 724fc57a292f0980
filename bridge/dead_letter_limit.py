"""When so many of a partition's records become dead letters that the fault is not in the records. Pure."""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)

_WINDOW = 1000  # recent records that count
_MIN_RECORDS = 100  # fewer records prove nothing


class DeadLetterLimit(Generic[P]):
    """Watches the share of dead letters among the recent records of each partition.

    The idea is DlqLimit of sentry-arroyo: a bad deployment of a producer must not drain a topic into a table.
    """

    def __init__(self, limit_percent: int) -> None:
        self._limit = limit_percent / 100
        self._recent: dict[P, deque[tuple[int, int]]] = {}

    def add(self, partition: P, records: int, dead: int) -> bool:
        """Count a stored batch; True if the partition now exceeds the limit. A limit of 100 % is never exceeded."""
        recent = self._recent.setdefault(partition, deque())
        recent.append((records, dead))
        while sum(counted for counted, _ in recent) - recent[0][0] >= _WINDOW:
            recent.popleft()
        counted = sum(records for records, _ in recent)
        return counted >= _MIN_RECORDS and self.share(partition) > self._limit

    def share(self, partition: P) -> float:
        """The share of dead letters among the recent records of a partition, 0 to 1."""
        recent = self._recent.get(partition, ())
        counted = sum(records for records, _ in recent)
        return sum(dead for _, dead in recent) / counted if counted else 0.0

    def forget(self, partition: P) -> None:
        """Restart the count of a partition."""
        self._recent.pop(partition, None)
