"""Tells PostgreSQL how this bridge does, and learns which partitions are stopped, in a thread of its own.

The loop must never wait for PostgreSQL, which only its workers need.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import peewee
import psycopg2
from kafka.structs import TopicPartition

from tasks import bridges, telemetry
from tasks.database import database
from tasks.schema_watch import SchemaWatch
from tasks.settings import Settings


class Reporter(threading.Thread):
    """Reports `status` every few seconds; everything it knows is as old as that at most."""

    def __init__(self, settings: Settings, status: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(name="reporter", daemon=True)
        self._status = status
        self._group = settings.kafka_group_id
        self._limit = settings.dead_letter_limit_percent
        self._member = f"{socket.gethostname()}-{os.getpid()}"
        self._schema_watch = SchemaWatch()
        self._wake = threading.Event()
        self._ending = False
        self._lock = threading.Lock()
        self._new: dict[TopicPartition, str] = {}
        self._stopped: frozenset[TopicPartition] | None = None

    def stop_partition(self, partition: TopicPartition, reason: str) -> None:
        """Note for all bridges, and for later, that the group does not read `partition`."""
        with self._lock:
            self._new[partition] = reason
            self._stopped = None
        self._wake.set()

    def stopped(self) -> frozenset[TopicPartition] | None:
        """The partitions that are stopped; None while that is not known."""
        with self._lock:
            return self._stopped

    def run(self) -> None:
        """Report until the bridge ends; an outage of PostgreSQL only makes the news old."""
        ending = False
        while not ending:
            self._wake.clear()
            ending = self._ending  # what was stopped before the end is reported yet
            self._try(self._turn)
            self._try(self._schema_watch.turn)
            if not ending:
                self._wake.wait(bridges.REPORT_SECONDS)
        self._try(lambda: bridges.leave(self._member))

    def end(self) -> None:
        """Report a last time; called when the bridge ends in order."""
        self._ending = True
        self._wake.set()
        self.join(1)

    def _try(self, action: Callable[[], None]) -> None:
        # Tables that `init` has yet to make are as good as an outage: the workers and the schema watch say so.
        with contextlib.suppress(peewee.PeeweeException, psycopg2.Error), database.connection_context():
            action()

    def _turn(self) -> None:
        with self._lock:
            new = dict(self._new)
        for partition, reason in new.items():
            bridges.stop(partition.topic, partition.partition, self._group, reason, self._limit)
        status = self._status()
        if status:
            bridges.report(self._member, status)
        for row in bridges.allow(self._group, self._limit):
            telemetry.emit("partition.released", topic=row.topic, partition=row.partition, limit_percent=self._limit)
        stopped = frozenset(TopicPartition(row.topic, row.partition) for row in bridges.stopped(self._group))
        with self._lock:
            if self._new.keys() == new.keys():
                self._new.clear()
                self._stopped = stopped
