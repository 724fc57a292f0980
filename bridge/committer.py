"""Commits to Kafka what PostgreSQL has: never more than `Progress` allows."""

import time
from collections.abc import Callable, Mapping

from bridge.kafka.types import Committed, Consumer, TopicPartition, names
from bridge.progress import Progress
from tasks.observability import events

_COMMIT_SECONDS = 0.2
_REJECTED_SECONDS = 2.0  # until a rejected partition is committed again


class Committer:
    """Commits in the background while the bridge runs, and waits for Kafka only at its end."""

    def __init__(
        self,
        consumer: Consumer,
        progress: Progress[TopicPartition],
        to_commit: Callable[[], Mapping[TopicPartition, Committed]],
    ) -> None:
        """`to_commit` returns what may be committed now."""
        self._consumer = consumer
        self._progress = progress
        self._to_commit = to_commit
        self._next_commit = 0.0
        self._rejected: dict[TopicPartition, float] = {}  # until when

    def commit_due(self, now: float) -> None:
        """Commit without waiting, a few times a second."""
        if now < self._next_commit:
            return
        self._next_commit = now + _COMMIT_SECONDS
        self._rejected = {partition: until for partition, until in self._rejected.items() if until > now}
        self._commit_async(lambda partition: partition not in self._rejected)

    def commit_revoked(self, partitions: set[TopicPartition]) -> None:
        """Commit these without waiting: Kafka gets the commit before it gives the partitions to another member."""
        self._commit_async(partitions.__contains__)

    def commit_all(self) -> None:
        """Commit and wait for Kafka."""
        offsets = self._to_commit()
        rejection = self._consumer.commit(offsets) if offsets else None
        if rejection is not None:  # the next bridge reads these records again, which changes nothing
            events.emit("offset.commit_failed", reason=rejection)

    def _commit_async(self, wanted: Callable[[TopicPartition], bool]) -> None:
        offsets = {partition: offset for partition, offset in self._to_commit().items() if wanted(partition)}
        if offsets:
            self._consumer.commit_async(offsets, self._on_commit)

    def _on_commit(self, positions: Mapping[TopicPartition, int], rejection: str | None) -> None:
        if rejection is not None:
            self._rejected |= dict.fromkeys(positions, time.monotonic() + _REJECTED_SECONDS)
            events.emit(
                "offset.commit_failed",
                partitions=names(positions),
                reason=rejection,
            )
            return
        for partition, offset in positions.items():
            self._progress.committed(partition, offset)
            events.emit("offset.committed", topic=partition.topic, partition=partition.partition, offset=offset)
