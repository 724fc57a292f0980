"""Which records Kafka deleted before they were read: retention, or somebody, was faster than the group. Pure.

Offsets without a record are normal: compaction and transactions leave them. So a gap is a loss only as far as it lies
before the first record that Kafka still has.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

P = TypeVar("P", bound=Hashable)
_MOST_GAPS = 1000  # between two looks at the first offset; a compacted topic has many


class HasOffset(Protocol):
    """What continuity needs of a record."""

    @property
    def offset(self) -> int:
        """Its offset."""
        ...


class Gap(NamedTuple):
    """Offsets that were not returned: `first` and those after it, before `next`; and when that was noticed."""

    first: int
    next: int
    noticed_at: float


@dataclass
class _Reading:
    since: float
    begin_read: int | None = None  # the first record that was returned
    next: int | None = None  # the offset that should be returned next
    still_next: int | None = None  # the same at the last look
    gaps: deque[Gap] = field(default_factory=lambda: deque(maxlen=_MOST_GAPS))


class Continuity(Generic[P]):
    """What was returned of each assigned partition, compared with the first offset that Kafka still has."""

    def __init__(self) -> None:
        self._readings: dict[P, _Reading] = {}

    def assign(self, partition: P, now: float) -> None:
        """Begin with a partition. How far it is stored is not known yet."""
        self._readings[partition] = _Reading(since=now)

    def forget(self, partition: P) -> None:
        """Forget a revoked partition."""
        self._readings.pop(partition, None)

    def since(self, partition: P) -> float:
        """When the partition was assigned; infinite if it is not."""
        reading = self._readings.get(partition)
        return float("inf") if reading is None else reading.since

    def begin(self, partition: P, offset: int) -> None:
        """The offset before which all is stored; records may have been returned already."""
        reading = self._readings[partition]
        if reading.begin_read is None:
            reading.next = offset
        elif reading.begin_read > offset:
            reading.gaps.append(Gap(offset, reading.begin_read, reading.since))

    def restart(self, partition: P, offset: int) -> None:
        """The partition is read from `offset` on."""
        reading = self._readings[partition]
        reading.begin_read = None
        reading.next, reading.still_next = offset, None
        reading.gaps.clear()

    def read(self, partition: P, records: Sequence[HasOffset], now: float) -> int | None:
        """Add records as they were returned. Returns the expected offset if they begin before it: it was reset."""
        reading = self._readings.get(partition)
        if reading is None:
            return None
        first, last, expected = records[0].offset, records[-1].offset, reading.next
        if reading.begin_read is None:
            reading.begin_read = first
        if expected is not None and first > expected:
            reading.gaps.append(Gap(expected, first, now))
        if last - first + 1 != len(records):
            before = first - 1
            for record in records:
                if record.offset != before + 1:
                    reading.gaps.append(Gap(before + 1, record.offset, now))
                before = record.offset
        reading.next = last + 1
        return expected if expected is not None and first < expected else None

    def passed(self, partition: P, position: int, now: float) -> None:
        """The client has passed offsets without returning a record."""
        reading = self._readings.get(partition)
        if reading is not None and reading.next is not None and position > reading.next:
            reading.gaps.append(Gap(reading.next, position, now))
            reading.next = position

    def losses(self, partition: P, first: int, asked_at: float, reads: bool) -> list[tuple[int, int]]:
        """What was lost (first offset, offset after the last), each once.

        `first` is the first offset of the partition, requested at `asked_at`; `reads`: the client is allowed to return
        records. A client that returns none between two looks, and expects a deleted one, has none before `first` left.
        """
        reading = self._readings[partition]
        judged = [gap for gap in reading.gaps if gap.noticed_at <= asked_at]
        for _ in judged:
            reading.gaps.popleft()
        lost = [(gap.first, min(gap.next, first)) for gap in judged if gap.first < first]
        if reads and reading.next is not None and reading.next == reading.still_next and reading.next < first:
            lost.append((reading.next, first))
            reading.next = first
        reading.still_next = reading.next if reads else None
        return lost
