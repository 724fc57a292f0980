"""Cuts records into batches of one partition, by count, bytes and age. Pure: the time is an argument."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What batching needs of a record."""

    offset: int
    serialized_key_size: int  # bytes; -1 without a key
    serialized_value_size: int  # -1 for a tombstone
    serialized_header_size: int  # all names and values; -1 without headers


R = TypeVar("R", bound=Sized)
P = TypeVar("P", bound=Hashable)
_PARTS = [attrgetter(f"serialized_{part}_size") for part in ("key", "value", "header")]
_RECORD_BYTES = 500  # memory of a record besides these: tombstones need memory, too


@dataclass
class _Waiting(Generic[R]):
    """Records of one partition that are not in a batch yet."""

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
        self._paused: set[P] = set()

    def add(self, polled: Mapping[P, Sequence[R]], now: float) -> None:
        """Take records as a poll returned them."""
        for partition, records in polled.items():
            waiting = self._waiting.get(partition)
            if waiting is None:
                waiting = self._waiting[partition] = _Waiting(since=now)
            waiting.records += records
            waiting.size += _size(records)

    def cut(
        self,
        now: float,
        most: int,
        allowed: Callable[[P, list[R]], int] = lambda _, batch: len(batch),
        at_once: bool = False,
    ) -> Iterator[tuple[P, list[R]]]:
        """Up to `most` batches that are due, the partition that has waited longest first.

        With `at_once` the first batch need not be due. `allowed` returns how many of a batch's first records may be
        handed over now; with 0 the partition waits.
        """
        for partition in sorted(self._waiting.keys() - self._paused, key=lambda p: self._waiting[p].since):
            while most > 0 and partition in self._waiting and (at_once or self._due(self._waiting[partition], now)):
                batch = self._first(self._waiting[partition])
                batch = batch[: allowed(partition, batch)]
                if not batch:
                    break
                most -= 1
                at_once = False
                self._take(partition, batch, now)
                yield partition, batch

    def due_in(self, now: float) -> float | None:
        """Seconds until the next batch is due, 0 if one is due; None if no records wait."""
        active = [self._waiting[partition] for partition in self._waiting.keys() - self._paused]
        return min((0.0 if self._due(w, now) else w.since + self._linger - now for w in active), default=None)

    def pause(self, partition: P) -> None:
        """Cut no batches of a partition until it is resumed; its records keep waiting."""
        self._paused.add(partition)

    def resume(self, partition: P) -> None:
        """Cut batches of a paused partition again."""
        self._paused.discard(partition)

    def clear(self, partition: P) -> int:
        """Forget the waiting records of a partition; returns how many there were."""
        waiting = self._waiting.pop(partition, None)
        return 0 if waiting is None else len(waiting.records)

    def drop(self, partition: P) -> None:
        """Forget a revoked partition."""
        self.clear(partition)
        self._paused.discard(partition)

    def first(self, partition: P) -> int | None:
        """The offset of the first waiting record of a partition; None if none waits."""
        waiting = self._waiting.get(partition)
        return waiting.records[0].offset if waiting is not None else None

    def size(self) -> int:
        """About how many bytes of memory the waiting records use, without those of paused partitions."""
        active = [self._waiting[partition] for partition in self._waiting.keys() - self._paused]
        return sum(waiting.size + _RECORD_BYTES * len(waiting.records) for waiting in active)

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
    """Bytes of keys, values and headers. Summed by part, because this runs three times for each record."""
    return sum(sum(map(part, records)) for part in _PARTS)
