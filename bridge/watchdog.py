"""Ends a bridge that makes no progress, so that supervisord restarts it: a restart is better than a silent stop."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bridge.kafka.topic_watch import TopicWatch
from bridge.kafka.types import TopicPartition, names
from tasks.errors import EXIT_FAILED
from tasks.observability import events

_INTERVAL_SECONDS = 1.0


class Stall(NamedTuple):
    """Where the client is in a partition whose records it does not return, and since when."""

    position: int
    since: float


def stalls(
    before: Mapping[TopicPartition, Stall], undelivered: Mapping[TopicPartition, int], now: float
) -> dict[TopicPartition, Stall]:
    """The partitions with undelivered records, each since its position has been the same."""
    return {
        partition: before[partition]
        if partition in before and before[partition].position == position
        else Stall(position, now)
        for partition, position in undelivered.items()
    }


def complaint(
    now: float, turned_at: float, progressed_at: float, limit: float, stalled: Mapping[TopicPartition, Stall]
) -> str:
    """What is wrong, or an empty string: no turn of the loop, or no progress, for `limit` seconds."""
    if now - turned_at > limit:
        return f"the loop has not turned for {now - turned_at:.0f} s"
    if now - progressed_at > limit:
        return f"nothing was stored for {now - progressed_at:.0f} s without a known cause"
    for partition, stall in stalled.items():
        if now - stall.since > limit:
            return f"Kafka's client has returned nothing of {names([partition])[0]} for {now - stall.since:.0f} s"
    return ""


class Watchdog(threading.Thread):
    """Checks `turned_at` and `progressed_at`, which the loop updates, every second.

    `progressed_at` is when a batch was stored, or when there was nothing to store, or a known reason not to store.
    While Kafka is away the limits do not apply, because the loop then waits inside the client; the outage is logged.
    """

    def __init__(self, limit_seconds: float, state: Callable[[], Mapping[str, Any]], topic_watch: TopicWatch) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.turned_at = self.progressed_at = time.monotonic()
        self._stalled: Mapping[TopicPartition, Stall] = {}
        self._limit = limit_seconds
        self._state = state
        self._topic_watch = topic_watch
        self._stopping = threading.Event()

    def run(self) -> None:
        """Check until `stop`, or until something is wrong: then log the bridge's status and end the process at once."""
        away = False
        while not self._stopping.wait(_INTERVAL_SECONDS):
            was_away, away = away, self._topic_watch.is_silent()
            if away:
                self.turned_at = self.progressed_at = time.monotonic()
                self._stalled = {}
            if away and not was_away:
                reason = self._topic_watch.failure or "it does not report the state of the topics"
                events.emit("service.unavailable", service="kafka", reason=reason)
            if was_away and not away:
                events.emit("service.available", service="kafka")
            reason = complaint(time.monotonic(), self.turned_at, self.progressed_at, self._limit, self._stalled)
            if self._topic_watch.hangs():
                reason = "a request to Kafka about the topics has not ended"
            if reason and not self._stopping.is_set():
                events.emit("bridge.stuck", reason=reason, **self._state())
                os._exit(EXIT_FAILED)  # a thread that hangs would outlive sys.exit

    def waits_for(self, undelivered: Mapping[TopicPartition, int]) -> None:
        """Take note of partitions whose records the client should return now, and where it is in them."""
        self._stalled = stalls(self._stalled, undelivered, time.monotonic())

    def stop(self) -> None:
        """Stop checking. May be called more than once."""
        self._stopping.set()
