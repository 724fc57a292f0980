"""What Kafka says about the topics of a bridge, requested in a thread of its own.

A bridge under backpressure does not fetch, so its lag would look constant; a client that has stopped returning records
does not know what it misses; and no client reports that a topic was deleted, recreated or truncated.
"""

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from bridge.kafka.cluster import Cluster
from bridge.kafka.types import Committed, Consumer, TopicPartition
from tasks.config.settings import Settings
from tasks.errors import BackendError

_INTERVAL_SECONDS = 5.0  # Prometheus scrapes less often
_RETRY_SECONDS = 1.0
_SILENT_SECONDS = 15.0  # without a response
_HANGS_SECONDS = 60.0  # the requests of a snapshot end within half of this


@dataclass(frozen=True)
class Snapshot:
    """The topics at one moment. `first`, `ends` and `committed` are offsets of `partitions`, as far as they exist."""

    asked_at: float  # before the requests, so that all of them are at least this new
    responded_at: float
    partitions: frozenset[TopicPartition] = frozenset()
    topic_ids: Mapping[str, str] = field(default_factory=dict)  # of the topics that exist
    first: Mapping[TopicPartition, int] = field(default_factory=dict)
    ends: Mapping[TopicPartition, int] = field(default_factory=dict)
    committed: Mapping[TopicPartition, Committed] = field(default_factory=dict)


class TopicWatch(threading.Thread):
    """Takes snapshots of the topics again and again; during an outage of Kafka the last one becomes stale."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="topic-watch", daemon=True)
        self._settings = settings
        self._partitions: frozenset[TopicPartition] = frozenset()
        self._wake = threading.Event()
        self._stopping = False
        now = time.monotonic()
        self._turned_at = now
        self._first_ids: dict[str, str] = {}
        self.recreated: frozenset[str] = frozenset()  # topics that have had another id since this process began
        self.failure = ""  # why the last snapshot failed; empty if it did not
        self.snapshot = Snapshot(now, now)  # replaced as a whole, because other threads read it

    def watch(self, partitions: Collection[TopicPartition]) -> None:
        """Include these partitions in the snapshots from now on, instead of others."""
        requested = frozenset(partitions)
        if requested != self._partitions:
            self._partitions = requested
            self._wake.set()

    def is_silent(self) -> bool:
        """Whether Kafka has not responded for a while."""
        return time.monotonic() - self.snapshot.responded_at > _SILENT_SECONDS

    def hangs(self) -> bool:
        """Whether a request has never ended, which no timeout of the client should allow."""
        return time.monotonic() - self._turned_at > _HANGS_SECONDS

    def position(self, consumer: Consumer, partition: TopicPartition) -> int | None:
        """The offset that `consumer` returns next: where the group had ended, if nothing was returned yet."""
        position = consumer.position(partition)
        if position is None:
            first, committed = self.snapshot.first.get(partition), self.snapshot.committed.get(partition)
            return first if first is None or committed is None else max(first, committed.offset)
        return position

    def undelivered(self, consumer: Consumer, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Those of `partitions` with records that `consumer` has not returned, and from where on.

        Empty while Kafka does not respond.
        """
        if self.is_silent():
            return {}
        ends = self.snapshot.ends
        positions = {partition: self.position(consumer, partition) or 0 for partition in partitions}
        return {partition: position for partition, position in positions.items() if ends.get(partition, 0) > position}

    def run(self) -> None:
        """Take snapshots until `stop`."""
        cluster, connected_at = Cluster(self._settings), time.monotonic()
        pause = _INTERVAL_SECONDS
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            self._turned_at = time.monotonic()
            if self._stopping:
                break
            try:
                self.snapshot, self.failure, pause = self._take(cluster), "", _INTERVAL_SECONDS
            except BackendError as error:  # the snapshot becomes stale, which the watchdog reports
                self.failure, pause = str(error), _RETRY_SECONDS
                # A client may fail for longer than the brokers do: it asks them at intervals of its own.
                if time.monotonic() - max(self.snapshot.responded_at, connected_at) > _SILENT_SECONDS:
                    cluster.close()
                    cluster, connected_at = Cluster(self._settings), time.monotonic()
        cluster.close()

    def stop(self) -> None:
        """End after the current request. May be called more than once."""
        self._stopping = True
        self._wake.set()

    def _take(self, cluster: Cluster) -> Snapshot:
        asked_at, partitions = time.monotonic(), self._partitions
        topics = {topic.name: topic for topic in cluster.topics(self._settings.consumed_topics)}
        self._first_ids = {topic.name: topic.id for topic in topics.values()} | self._first_ids
        self.recreated = frozenset(name for name, topic in topics.items() if topic.id != self._first_ids[name])
        there = {p for p in partitions if p.topic in topics and p.partition < topics[p.topic].partitions}
        return Snapshot(
            asked_at=asked_at,
            topic_ids={topic.name: topic.id for topic in topics.values()},
            partitions=partitions,
            committed=cluster.committed(there),
            first=cluster.first_offsets(there),
            ends=cluster.end_offsets(there),
            responded_at=time.monotonic(),
        )
