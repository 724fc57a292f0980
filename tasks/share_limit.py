"""When so many of what is alike fail that the fault is not in each of them. Pure."""

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)

_WINDOW = 1000  # recent ones that count
_LEAST = 100  # fewer prove nothing


class ShareLimit(Generic[P]):
    """Watches the share of failures among the recent records of each partition, or runs of each task.

    The idea is DlqLimit of sentry-arroyo: a bad deployment of a producer must not drain a topic into a table.
    """

    def __init__(self, limit_percent: int) -> None:
        self._limit = limit_percent / 100
        self._recent: dict[P, deque[tuple[int, int]]] = {}

    def add(self, subject: P, number: int, failed: int) -> bool:
        """Count some more; True if the subject now exceeds the limit. A limit of 100 % is never exceeded."""
        recent = self._recent.setdefault(subject, deque())
        recent.append((number, failed))
        while sum(counted for counted, _ in recent) - recent[0][0] >= _WINDOW:
            recent.popleft()
        counted = sum(number for number, _ in recent)
        return counted >= _LEAST and self.share(subject) > self._limit

    def share(self, subject: P) -> float:
        """The share of failures among the recent ones of a subject, 0 to 1."""
        recent = self._recent.get(subject, ())
        counted = sum(number for number, _ in recent)
        return sum(failed for _, failed in recent) / counted if counted else 0.0

    def forget(self, subject: P) -> None:
        """Restart the count of a subject."""
        self._recent.pop(subject, None)
