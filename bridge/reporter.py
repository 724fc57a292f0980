"""Writes the status of this bridge to PostgreSQL, and reads which partitions are quarantined, in a thread of its own.

The loop must never wait for PostgreSQL, which only the workers need.
"""

import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import peewee
import psycopg2

from bridge.kafka.types import TopicPartition
from bridge.sources import Sources
from tasks.config.settings import Settings
from tasks.observability import events
from tasks.store import bridge_status, lost_records
from tasks.store.connection import database
from tasks.store.lost_records import Loss
from tasks.store.schema_watch import SchemaWatch


class Reporter(threading.Thread):
    """Reports `status` every few seconds; what it knows is at most that old."""

    def __init__(self, settings: Settings, status: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(name="reporter", daemon=True)
        self._status = status
        self._group = settings.kafka_group_id
        self._limit = settings.dead_letter_limit_percent
        self._member = f"{socket.gethostname()}-{os.getpid()}"
        self._schema_watch = SchemaWatch()
        self._wake = threading.Event()
        self.sources = Sources(self._wake.set)
        self._stopping = False
        self._lock = threading.Lock()
        self._unreported: dict[TopicPartition, str] = {}
        self._losses: deque[tuple[Loss, str]] = deque()
        self._quarantined: frozenset[TopicPartition] | None = None

    def quarantine(self, partition: TopicPartition, reason: str) -> None:
        """Record, for all bridges and beyond a restart, that the group does not read `partition`."""
        with self._lock:
            self._unreported[partition] = reason
            self._quarantined = None
        self._wake.set()

    def lose(self, loss: Loss, topic_id: str) -> None:
        """Record that Kafka deleted records of a topic before they were read, until somebody acknowledges it."""
        self._losses.append((loss, topic_id))
        self._wake.set()

    def quarantined(self) -> frozenset[TopicPartition] | None:
        """The quarantined partitions; None while they are not known."""
        with self._lock:
            return self._quarantined

    def run(self) -> None:
        """Report until `stop`; an outage of PostgreSQL only makes the status stale."""
        stopping = False
        while not stopping:
            self._wake.clear()
            stopping = self._stopping  # what was quarantined before `stop` is still written
            self._try(self._report_losses)
            self._try(self.sources.look)  # after the losses, which are no gaps then
            self._try(self._report)  # its COMMIT may wait for a standby that is away, and nothing waits for it
            self._try(self._schema_watch.check_if_due)
            if not stopping:
                self._wake.wait(bridge_status.REPORT_SECONDS)
        self._try(lambda: bridge_status.leave(self._member))

    def stop(self) -> None:
        """Report a last time and remove the bridge's status; waits a second for that. May be called more than once."""
        self._stopping = True
        self._wake.set()
        if self.is_alive():
            self.join(1)

    def _try(self, action: Callable[[], None]) -> None:
        # Tables that do not exist yet are like an outage: workers and schema watch log both.
        with contextlib.suppress(peewee.PeeweeException, psycopg2.Error), database.connection_context():
            action()

    def _report_losses(self) -> None:
        while self._losses:
            lost_records.add(self._group, *self._losses[0])
            self._losses.popleft()

    def _report(self) -> None:
        with self._lock:
            unreported = dict(self._unreported)
        for partition, reason in unreported.items():
            bridge_status.quarantine(partition.topic, partition.partition, self._group, reason, self._limit)
        status = self._status()
        if status:
            bridge_status.report(self._member, status)
        for row in bridge_status.release_below(self._group, self._limit):
            events.emit("partition.released", topic=row.topic, partition=row.partition, limit_percent=self._limit)
        rows = bridge_status.quarantined(self._group)
        quarantined = frozenset(TopicPartition(row.topic, row.partition) for row in rows)
        with self._lock:
            if self._unreported.keys() == unreported.keys():
                self._unreported.clear()
                self._quarantined = quarantined
