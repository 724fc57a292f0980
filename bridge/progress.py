"""How far each partition is durably in PostgreSQL: the offset that may be committed. Pure.

The one invariant of the bridge: an offset is committed only when every record below it is in
PostgreSQL, as message or dead letter.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


class Progress(Generic[P]):
    """Batches handed over and stored, by partition. Batches of a partition are handed over in order."""

    def __init__(self) -> None:
        self._open: dict[P, OrderedDict[str, tuple[int, bool]]] = {}  # batch -> (next offset, stored)
        self._committable: dict[P, int] = {}
        self._committed: dict[P, int] = {}
        self._handed_over: dict[P, int] = {}
        self._stored: dict[P, int] = {}

    def begin(self, partition: P, offset: int) -> None:
        """Begin to read a partition at `offset`, or begin again."""
        self.forget(partition)
        self._handed_over[partition] = offset

    def handed_over_until(self, partition: P) -> int:
        """Where the next batch begins: no record lies between this offset and its first one."""
        return self._handed_over[partition]

    def stored_until(self, partition: P) -> int | None:
        """The offset before which workers have stored all, as far as batches of this bridge say; None if none does."""
        return self._stored.get(partition)

    def handed_over(self, partition: P, batch: str, next_offset: int) -> None:
        """Add a batch that ends before `next_offset`; gaps between batches contain no records."""
        self._open.setdefault(partition, OrderedDict())[batch] = (next_offset, False)
        self._handed_over[partition] = next_offset

    def stored(self, partition: P, batch: str) -> None:
        """Record that `batch` is in PostgreSQL. An unknown or stored batch changes nothing."""
        batches = self._open.get(partition)
        if batches is None or batch not in batches:
            return
        batches[batch] = (batches[batch][0], True)
        while batches:
            first, (next_offset, done) = next(iter(batches.items()))
            if not done:
                return
            del batches[first]
            self._committable[partition] = self._stored[partition] = next_offset

    def split(self, partition: P, batch: str, parts: list[tuple[str, int]]) -> None:
        """Replace an open batch by `parts` (batch, next offset) in its place. An unknown batch changes nothing."""
        if batch not in self._open.get(partition, ()):
            return
        replaced: OrderedDict[str, tuple[int, bool]] = OrderedDict()
        for name, state in self._open[partition].items():
            if name == batch:
                replaced.update((part, (next_offset, False)) for part, next_offset in parts)
            else:
                replaced[name] = state
        self._open[partition] = replaced

    def reached(self, partition: P, offset: int) -> None:
        """Record that all records below `offset` were handed over; ignored while a batch is open."""
        if not self._open.get(partition) and offset > self._committable.get(partition, -1):
            self._committable[partition] = offset

    def to_commit(self) -> dict[P, int]:
        """The offsets that may be committed and are not yet."""
        return {p: offset for p, offset in self._committable.items() if self._committed.get(p) != offset}

    def committed(self, partition: P, offset: int) -> None:
        """Record that Kafka has committed `offset`. Ignored for a revoked partition."""
        if partition in self._committable:
            self._committed[partition] = offset

    def forget(self, partition: P) -> None:
        """Forget a revoked partition: none of its offsets may be committed."""
        for kept in (self._open, self._committable, self._committed, self._handed_over, self._stored):
            kept.pop(partition, None)

    def open_batches(self, partition: P) -> int:
        """The number of batches of the partition that are not stored yet, or wait for an earlier one."""
        return len(self._open.get(partition, ()))
