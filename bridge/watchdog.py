"""Ends a bridge that makes no progress, so that supervisord restarts it: a restart is better than a silent stop."""

import faulthandler
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from bridge.kafka.topic_watch import TopicWatch
from bridge.kafka.types import TopicPartition, names
from tasks.errors import EXIT_FAILED
from tasks.observability import events

_INTERVAL_SECONDS = 1.0
FROZEN_SECONDS = 20.0  # Kafka gives the partitions of a bridge that says nothing to others after a third of this
# If a leader of the old topic had failed, the new topic's leaders have a lower epoch. Kafka's client then ignores them,
# and returns no record of the new topic until the process is restarted.
_RECREATED_SECONDS = 10.0


class Stall(NamedTuple):
    """Where the client is in a partition whose records it does not return, and for how long it could have."""

    position: int
    seconds: float


def stalls(
    before: Mapping[TopicPartition, Stall], undelivered: Mapping[TopicPartition, int], seconds: float
) -> dict[TopicPartition, Stall]:
    """The partitions with undelivered records, for `seconds` longer if their positions are the same as `before`."""
    return {
        partition: Stall(position, before[partition].seconds + seconds)
        if partition in before and before[partition].position == position
        else Stall(position, 0)
        for partition, position in undelivered.items()
    }


def stalled_too_long(stalled: Mapping[TopicPartition, Stall], limit: float, recreated: Collection[str]) -> str:
    """Which partition the client has returned nothing of for `limit` seconds; soon, if its topic was recreated."""
    for partition, stall in stalled.items():
        if stall.seconds > (min(limit, _RECREATED_SECONDS) if partition.topic in recreated else limit):
            return f"Kafka's client has returned nothing of {names([partition])[0]} for {stall.seconds:.0f} s"
    return ""


def complaint(now: float, turned_at: float, progressed_at: float, limit: float) -> str:
    """What is wrong, or an empty string: no turn of the loop, or no progress, for `limit` seconds."""
    if now - turned_at > limit:
        return f"the loop has not turned for {now - turned_at:.0f} s"
    if now - progressed_at > limit:
        return f"nothing was stored for {now - progressed_at:.0f} s without a known cause"
    return ""


class Watchdog(threading.Thread):
    """Checks `turned_at`, `progressed_at` and `client_is_silent`, which the loop updates, every second.

    `progressed_at` is when a batch was stored, or when there was nothing to store, or a known reason not to store.
    While Kafka is away the limits do not apply, because the loop then waits inside the client; the outage is logged.

    A client that deadlocks in a call holds Python's lock, so that this thread stands still too (librdkafka does, if a
    broker fails at the wrong moment: its issue 5476). Therefore faulthandler's thread, which needs no lock, ends a
    process in which this one has not turned for FROZEN_SECONDS, and writes to stderr where each thread was.
    """

    def __init__(self, limit_seconds: float, state: Callable[[], Mapping[str, Any]], topic_watch: TopicWatch) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.turned_at = self.progressed_at = self._looked_at = time.monotonic()
        self.client_is_silent = False
        self._stalled: Mapping[TopicPartition, Stall] = {}
        self._limit = limit_seconds
        self._state = state
        self._topic_watch = topic_watch
        self._stopping = threading.Event()

    def run(self) -> None:
        """Check until `stop`, or until something is wrong: then log the bridge's status and end the process at once."""
        away = False
        while True:
            faulthandler.dump_traceback_later(FROZEN_SECONDS, exit=True)
            if self._stopping.wait(_INTERVAL_SECONDS):
                break
            was_away, away = away, self._topic_watch.is_silent()
            if away:
                self.turned_at = self.progressed_at = time.monotonic()
                self._stalled = {}
            if away and not was_away:
                reason = self._topic_watch.failure or "it does not report the state of the topics"
                events.emit("service.unavailable", service="kafka", reason=reason)
            if was_away and not away:
                events.emit("service.available", service="kafka")
            reason = complaint(time.monotonic(), self.turned_at, self.progressed_at, self._limit)
            reason = reason or stalled_too_long(self._stalled, self._limit, self._topic_watch.recreated)
            if self._topic_watch.hangs():
                reason = "a request to Kafka about the topics has not ended"
            if self.client_is_silent:
                reason = "Kafka's client gives no sign of life"
            if reason and not self._stopping.is_set():
                events.emit("bridge.stuck", reason=reason, **self._state())
                os._exit(EXIT_FAILED)  # a thread that hangs would outlive sys.exit
        faulthandler.cancel_dump_traceback_later()

    def waits_for(self, undelivered: Mapping[TopicPartition, int], reads: bool) -> None:
        """Take note of partitions whose records the client has not returned, and where it is in them.

        While the bridge reads nothing (`reads`), none is to blame: their clocks stand still.
        """
        before, self._looked_at = self._looked_at, time.monotonic()
        self._stalled = stalls(self._stalled, undelivered, self._looked_at - before if reads else 0)

    def stop(self) -> None:
        """Stop checking. May be called more than once."""
        self._stopping.set()
