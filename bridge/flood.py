"""When so much of a partition goes to dead_letter that the fault is not the records': stop it. Pure."""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)

_WINDOW = 1000  # recent records that count
_LEAST = 100  # of fewer nothing is concluded


class Flood(Generic[P]):
    """Watches the share of dead letters among the recent records of each partition.

    The idea is arroyo's DlqLimit: a bad deployment of a producer must not drain a topic into a table.
    """

    def __init__(self, limit_percent: int) -> None:
        self._limit = limit_percent / 100
        self._recent: dict[P, deque[tuple[int, int]]] = {}

    def add(self, partition: P, records: int, dead: int) -> bool:
        """Count a stored batch; whether the partition is now over the limit. A limit of 100 % is never passed."""
        recent = self._recent.setdefault(partition, deque())
        recent.append((records, dead))
        while sum(counted for counted, _ in recent) - recent[0][0] >= _WINDOW:
            recent.popleft()
        counted = sum(records for records, _ in recent)
        return counted >= _LEAST and self.share(partition) > self._limit

    def share(self, partition: P) -> float:
        """Dead letters among the recent records of a partition, 0 to 1."""
        recent = self._recent.get(partition, ())
        counted = sum(records for records, _ in recent)
        return sum(dead for _, dead in recent) / counted if counted else 0.0

    def forget(self, partition: P) -> None:
        """Count the partition anew."""
        self._recent.pop(partition, None)
