"""Which records must not be in flight at the same time: none, those of a partition, or those of a key. Pure."""

from collections.abc import Hashable, Sequence
from operator import attrgetter
from typing import Any, Generic, Literal, TypeVar

P = TypeVar("P", bound=Hashable)
Kind = Literal["none", "partition", "key"]
_key = attrgetter("key")
_WORTH_A_TASK = 0.25  # of a batch; a smaller part waits, or many keys would make many tiny batches


class Ordering(Generic[P]):
    """Remembers what is in flight and decides how much of a batch may follow.

    `partition`: one batch of a partition at a time. `key`: no two batches with the same key at a time, so
    that the messages of a key are stored in the order of their offsets; records without a key have no order.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self._keys: dict[P, dict[str, frozenset[Any]]] = {}

    def allowed(self, partition: P, batch: Sequence[Any]) -> int:
        """How many of the first records of `batch` may be handed over now."""
        in_flight = self._keys.get(partition)
        if self.kind == "none" or not in_flight:
            return len(batch)
        if self.kind == "partition":
            return 0
        busy: set[Any] = set().union(*in_flight.values())
        free = next((place for place, record in enumerate(batch) if record.key in busy), len(batch))
        return free if free >= len(batch) * _WORTH_A_TASK else 0

    def handed_over(self, partition: P, name: str, batch: Sequence[Any]) -> None:
        """Record that `batch` is in flight under `name`."""
        if self.kind == "none":
            return
        keys = frozenset(map(_key, batch)) - {None} if self.kind == "key" else frozenset()
        self._keys.setdefault(partition, {})[name] = keys

    def done(self, partition: P, name: str) -> None:
        """Record that `name` is stored; unknown names change nothing."""
        in_flight = self._keys.get(partition, {})
        in_flight.pop(name, None)
        if not in_flight:
            self._keys.pop(partition, None)

    def split(self, partition: P, name: str, parts: Sequence[str]) -> None:
        """Replace `name` by its `parts`, which both keep all its keys until they are stored."""
        keys = self._keys.get(partition, {}).pop(name, None)
        if keys is not None:
            self._keys[partition].update(dict.fromkeys(parts, keys))

    def forget(self, partition: P) -> None:
        """Forget a revoked partition."""
        self._keys.pop(partition, None)
