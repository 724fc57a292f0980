"""Which records travel together: batches of one partition by count, bytes and age. Pure; takes the time as given."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What a record must tell to be batched."""

    offset: int
    serialized_key_size: int  # bytes; -1 for none
    serialized_value_size: int  # -1 for a tombstone
    serialized_header_size: int  # of all names and values; -1 without


R = TypeVar("R", bound=Sized)
P = TypeVar("P", bound=Hashable)
_PARTS = [attrgetter(f"serialized_{part}_size") for part in ("key", "value", "header")]
_RECORD_BYTES = 500  # of memory that a record takes beside these: tombstones wait too


@dataclass
class _Waiting(Generic[R]):
    """Records of one partition that are in no batch yet."""

    since: float
    size: int = 0
    records: list[R] = field(default_factory=list)


class Batcher(Generic[P, R]):
    """Collects records by partition and cuts them into batches, in order.

    A batch has at most `max_records`, and at most `max_bytes` of keys, values and headers unless its only
    record is larger. It is cut when one of the two is reached, or `linger` seconds after its oldest record came
    or its partition was last cut.
    """

    def __init__(self, max_records: int, max_bytes: int, linger: float) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._linger = linger
        self._waiting: dict[P, _Waiting[R]] = {}
        self._stopped: set[P] = set()

    def add(self, polled: Mapping[P, Sequence[R]], now: float) -> None:
        """Take records as a poll returned them."""
        for partition, records in polled.items():
            waiting = self._waiting.get(partition)
            if waiting is None:
                waiting = self._waiting[partition] = _Waiting(since=now)
            waiting.records += records
            waiting.size += _size(records)

    def cut(
        self, now: float, most: int, allowed: Callable[[P, list[R]], int] = lambda _, batch: len(batch)
    ) -> Iterator[tuple[P, list[R]]]:
        """Up to `most` batches that are due, the longest waiting partition first.

        `allowed` says how many of a batch's first records may go now; none: the partition waits.
        """
        for partition in sorted(self._waiting.keys() - self._stopped, key=lambda p: self._waiting[p].since):
            while most > 0 and partition in self._waiting and self._due(self._waiting[partition], now):
                batch = self._first(self._waiting[partition])
                batch = batch[: allowed(partition, batch)]
                if not batch:
                    break
                most -= 1
                self._take(partition, batch, now)
                yield partition, batch

    def due_in(self, now: float) -> float | None:
        """Seconds until the next batch is due, 0 if one is; None when nothing waits."""
        going = [self._waiting[partition] for partition in self._waiting.keys() - self._stopped]
        return min((0.0 if self._due(w, now) else w.since + self._linger - now for w in going), default=None)

    def stop(self, partition: P) -> None:
        """Cut nothing more of a partition; what waits, waits."""
        self._stopped.add(partition)

    def go_on(self, partition: P) -> None:
        """Cut a stopped partition again."""
        self._stopped.discard(partition)

    def drop(self, partition: P) -> None:
        """Forget a partition that was taken from us."""
        self._waiting.pop(partition, None)
        self._stopped.discard(partition)

    def first(self, partition: P) -> int | None:
        """The offset of the first record of a partition that waits; None when none does."""
        waiting = self._waiting.get(partition)
        return waiting.records[0].offset if waiting is not None else None

    def size(self) -> int:
        """About how many bytes of memory wait and may go."""
        going = [self._waiting[partition] for partition in self._waiting.keys() - self._stopped]
        return sum(waiting.size + _RECORD_BYTES * len(waiting.records) for waiting in going)

    def __len__(self) -> int:
        return sum(len(waiting.records) for waiting in self._waiting.values())

    def _due(self, waiting: _Waiting[R], now: float) -> bool:
        full = len(waiting.records) >= self._max_records or waiting.size >= self._max_bytes
        return full or now >= waiting.since + self._linger

    def _first(self, waiting: _Waiting[R]) -> list[R]:
        batch = waiting.records[: self._max_records]
        size = _size(batch)
        while size > self._max_bytes and len(batch) > 1:
            size -= _size([batch.pop()])
        return batch

    def _take(self, partition: P, batch: list[R], now: float) -> None:
        waiting = self._waiting[partition]
        del waiting.records[: len(batch)]
        waiting.size -= _size(batch)
        waiting.since = now
        if not waiting.records:
            del self._waiting[partition]


def _size(records: Sequence[Sized]) -> int:
    """Bytes of keys, values and headers. Summed by part: this runs three times for each record there is."""
    return sum(sum(map(part, records)) for part in _PARTS)
