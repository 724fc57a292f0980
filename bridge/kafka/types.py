"""What the bridge needs of a Kafka client, as types: any client can be put behind them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol


class TopicPartition(NamedTuple):
    """A partition of a topic. Equal to the one of kafka-python, which is a tuple of the same fields."""

    topic: str
    partition: int


def names(partitions: Iterable[TopicPartition]) -> list[str]:
    """Partitions for the log, such as orders/0, sorted."""
    return sorted(f"{p.topic}/{p.partition}" for p in partitions)


class ConsumedRecord(Protocol):
    """A record as a poll returns it."""

    offset: int
    timestamp: int  # Unix time in milliseconds
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] | None  # None: the client could not return them
    serialized_key_size: int  # bytes; -1 without a key
    serialized_value_size: int  # -1 for a tombstone
    serialized_header_size: int  # all names and values; -1 without headers


class RebalanceListener(Protocol):
    """Receives the rebalances, during a poll."""

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """These partitions are ours from now on; no record of them has been returned yet."""

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """These partitions will be another member's once this returns."""


class Committed(NamedTuple):
    """What a group has committed in a partition. `topic_id` is empty if another program committed it."""

    offset: int
    topic_id: str


OnCommit = Callable[[Mapping[TopicPartition, int], str | None], None]


class Consumer(Protocol):
    """A member of a consumer group. It commits only when told to. One thread uses it."""

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group with the next poll; `listener` is called in polls."""

    def poll(
        self, timeout_ms: int = 0, max_records: int | None = None
    ) -> Mapping[TopicPartition, Sequence[ConsumedRecord]]:
        """Records by partition, in order; waits up to `timeout_ms` for the first one."""
        ...

    def assignment(self) -> set[TopicPartition]:
        """The partitions of this member."""
        ...

    def paused(self) -> set[TopicPartition]:
        """Those of them that are paused."""
        ...

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Return no records of these until they are resumed."""

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Return their records again, from where they were paused."""

    def position(self, partition: TopicPartition) -> int | None:
        """The offset that is returned next, past the marks of transactions; None before the first record."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> bool:
        """Go on at this offset; what was fetched and not returned is dropped.

        False: the client is still looking up where the group had ended; try again.
        """
        ...

    def commit(self, offsets: Mapping[TopicPartition, Committed]) -> str | None:
        """Commit, and wait for Kafka; returns the reason if Kafka rejects the commit."""
        ...

    def commit_async(self, offsets: Mapping[TopicPartition, Committed], on_commit: OnCommit) -> None:
        """Commit without waiting; a later poll calls `on_commit` with the offsets, and the reason of a rejection."""

    def is_silent(self) -> bool:
        """Whether the client is broken: it is polled, and does not even report what it could without a broker."""
        ...

    def close(self) -> None:
        """Leave the group without a commit."""
