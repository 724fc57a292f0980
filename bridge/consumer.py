"""The bridge: reads partitions, hands batches to Celery, commits what PostgreSQL has.

The loop only moves things from one part to the next. The decisions are made in `batches` (what travels together),
`progress` (what may be committed) and `retries` (what happens to failures).
"""

import time
from collections.abc import Collection, Mapping
from typing import Any

from bridge import gauges
from bridge.backpressure import Backpressure, reason
from bridge.batches import Batcher
from bridge.committer import Committer
from bridge.handover import Flight, Handover
from bridge.kafka.topic_watch import TopicWatch
from bridge.kafka.types import ConsumedRecord, Consumer, TopicPartition, names
from bridge.ordering import Ordering
from bridge.positions import Positions
from bridge.progress import Progress
from bridge.quarantine import Quarantine
from bridge.reporter import Reporter
from bridge.retries import decide
from bridge.stop_signal import StopSignal
from bridge.watchdog import Watchdog
from tasks.claim_check import Result
from tasks.config.settings import Settings
from tasks.observability import events

_STATUS_SECONDS = 0.5
DRAIN_SECONDS = 15.0  # a pod has 25 s to stop
_SHORT_WAIT_SECONDS = 0.05
_PAUSE_AFTER_SECONDS = 10.0  # not polling costs nothing, but Kafka revokes the partitions of a member that never polls


class Bridge:
    """One member of the consumer group. `run` returns after a stop signal, when everything stored is committed."""

    def __init__(self, settings: Settings, handover: Handover, consumer: Consumer, stop: StopSignal) -> None:
        self._settings = settings
        self._consumer = consumer
        self._stop = stop
        self._handover = handover
        self._batcher: Batcher[TopicPartition, ConsumedRecord] = Batcher(
            settings.batch_records, settings.batch_bytes, settings.linger_ms / 1000
        )
        self._progress: Progress[TopicPartition] = Progress()
        self._ordering: Ordering[TopicPartition] = Ordering(settings.ordering)
        self._backpressure = Backpressure()
        self._status: dict[str, Any] = {}  # a snapshot for the threads, which must not read what the loop changes
        self._reporter = Reporter(settings, lambda: self._status)
        self._topic_watch = TopicWatch(settings)
        self._positions = Positions(
            settings.consumed_topics, self._topic_watch, self._reporter, consumer, self._batcher, self._progress
        )
        self._committer = Committer(consumer, self._progress, self._positions.to_commit)
        self._quarantine = Quarantine(settings, consumer, self._batcher, self._reporter)
        self._watchdog = Watchdog(settings.watchdog_seconds, lambda: self._status, self._topic_watch)
        self._gauges = gauges.Gauges(consumer, self._topic_watch, self._handover, self._batcher)
        self._paused = False
        self._next_status = 0.0
        self._undelivered: Mapping[TopicPartition, int] = {}

    def run(self) -> None:
        """Work until the stop signal, then let batches in flight finish and commit them."""
        self._consumer.subscribe(self._settings.consumed_topics, self)
        threads = (self._reporter, self._watchdog, self._topic_watch)
        for thread in threads:
            thread.start()
        while not self._stop.requested:
            self._turn()
        self._drain()
        # The watchdog first: the loop does not turn. The consumer last: its successors find everything committed.
        for thread in (self._watchdog, self._topic_watch, self._reporter):
            thread.stop()
        self._consumer.close()

    def _turn(self) -> None:
        """Results in, batches out, offsets to Kafka, records in. Everything the bridge does, in order."""
        self._take_results(0)
        self._hand_over()
        self._committer.commit_due(time.monotonic())
        self._quarantine.update(time.monotonic())
        if self._must_not_read():
            self._wait_for_results()
        else:
            self._read()
        self._publish_status()

    def _read(self) -> None:
        if self._paused:
            self._paused = False
            self._consumer.resume(self._consumer.paused() - self._quarantine.partitions)
        now = time.monotonic()
        due = self._batcher.due_in(now)
        idle = 0.1 if not len(self._handover) else 0.01  # results of batches in flight arrive soon
        # A batch that is due already waits for its order, that is for a result; it must not make the loop spin.
        timeout = idle if due is None else min(idle, max(due, 0.005))
        self._poll(int(timeout * 1000))

    def _poll(self, timeout_ms: int) -> None:
        polled = self._consumer.poll(timeout_ms=timeout_ms, max_records=self._settings.batch_records)
        if polled:
            now = time.monotonic()
            gauges.consumed(polled)
            self._positions.read(polled, now)
            self._batcher.add(polled, now)

    def _must_not_read(self) -> bool:
        now, size = time.monotonic(), self._batcher.size()
        self._backpressure.update(reason(self._settings, self._handover, size, bool(self._positions.failure(now))), now)
        return not self._backpressure.reads

    def _wait_for_results(self) -> None:
        """Read nothing for a moment. A short wait just does not poll; a long one pauses and keeps the membership."""
        if time.monotonic() - self._backpressure.since > _PAUSE_AFTER_SECONDS:
            if not self._paused:
                events.emit("partitions.paused", reason=self._backpressure.reason)
            self._paused = True
            self._consumer.pause(self._consumer.assignment())
            self._poll(0)
        self._take_results(_SHORT_WAIT_SECONDS)

    def _hand_over(self) -> None:
        now = time.monotonic()
        free = self._settings.in_flight - len(self._handover)
        # Where nothing is in flight, nothing is gained by waiting: more will come while this batch is stored.
        for partition, records in self._batcher.cut(now, free, self._allowed, at_once=not len(self._handover)):
            claim = self._handover.start(partition, *self._positions.next_span(partition), records, now)
            self._progress.handed_over(partition, claim.batch, claim.last_offset + 1)
            self._ordering.handed_over(partition, claim.batch, records)
        self._handover.deliver_due(now)

    def _allowed(self, partition: TopicPartition, batch: list[ConsumedRecord]) -> int:
        return self._ordering.allowed(partition, batch) if self._positions.is_begun(partition) else 0

    def _take_results(self, wait_seconds: float) -> None:
        for result in self._handover.results(wait_seconds, time.monotonic()):
            self._take(result, time.monotonic())

    def _take(self, result: Result, now: float) -> None:
        flight = self._handover.flight(result)
        if flight is None:
            return
        flight.kills += result.outcome == "killed"
        match decide(result, flight.claim.records, flight.kills):
            case "done":
                self._stored(flight, result, now)
            case "retry":
                self._handover.retry(flight, result.reason, now)
                self._positions.failed(flight.claim)
            case "split":
                self._split(flight, result, now)
            case "dead_letter":
                self._handover.dead_letter(flight, result.reason, now)

    def _stored(self, flight: Flight, result: Result, now: float) -> None:
        gauges.stored(flight, now)
        self._handover.drop(flight)
        self._progress.stored(flight.partition, result.batch)
        self._ordering.done(flight.partition, result.batch)
        self._watchdog.progressed_at = now
        self._quarantine.count(flight.partition, flight.claim.records, result.counted)

    def _split(self, flight: Flight, result: Result, now: float) -> None:
        events.emit("batch.split", **flight.claim.place(), reason=result.reason)
        parts = self._handover.split(flight, now, in_order=self._ordering.kind != "none")
        next_offsets = [(part.batch, part.last_offset + 1) for part in parts]
        self._progress.split(flight.partition, result.batch, next_offsets)
        self._ordering.split(flight.partition, result.batch, [part.batch for part in parts])

    def _publish_status(self) -> None:
        """Update what watchdog, reporter, metrics and log show."""
        now = time.monotonic()
        self._watchdog.turned_at = now
        unfinished = len(self._handover) or self._batcher.due_in(now) is not None or self._undelivered
        if not unfinished or self._failure(now) or not self._handover.available:
            self._watchdog.progressed_at = now
        if now >= self._next_status or self._positions.has_news():
            self._next_status = now + _STATUS_SECONDS
            self._positions.update(self._backpressure.reads, now)
            wanted = self._consumer.assignment() - self._quarantine.partitions
            self._undelivered = self._topic_watch.undelivered(self._consumer, wanted)
            self._watchdog.waits_for(self._undelivered, self._backpressure.reads)
            self._watchdog.client_is_silent = self._consumer.is_silent()
            self._status = self._snapshot(now)
            self._gauges.update(self._backpressure, self._quarantine, now)
        if self._backpressure.changed(now):
            if self._backpressure.reported is None:
                events.emit("bridge.resumed")
            else:
                events.emit("bridge.backpressure", reason=self._backpressure.reported, failure=self._failure(now))

    def _failure(self, now: float) -> str:
        return self._handover.failure() or self._positions.failure(now)

    def _snapshot(self, now: float) -> dict[str, Any]:
        """The status of this bridge, as /health/ready shows it."""
        spent = self._backpressure.seconds(now) | self._quarantine.backpressure.seconds(now)
        return {
            "backpressure": self._backpressure.reason,
            "backpressure_seconds": {reason: round(seconds, 1) for reason, seconds in spent.items()},
            "failure": self._failure(now),
            "in_flight": len(self._handover),
            "in_flight_bytes": self._handover.size(),
            "waiting": len(self._batcher),
            "undelivered": bool(self._undelivered),
            "partitions": names(self._consumer.assignment()),
            "quarantined": names(self._quarantine.partitions),
        }

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Called by the client in a poll, before the first record of `assigned`."""
        events.emit("partitions.assigned", partitions=names(assigned))
        self._positions.assigned(assigned, time.monotonic())
        self._topic_watch.watch(self._consumer.assignment())
        self._quarantine.apply(self._quarantine.partitions)

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Called by the client in a poll: commit what is stored; the next bridge reads the rest again.

        It waits for nothing, because all partitions of this bridge would wait.
        """
        if not revoked:
            return
        began = time.monotonic()
        for partition in revoked:
            self._batcher.drop(partition)
        self._take_results(0)
        self._committer.commit_revoked(set(revoked))
        left = self._handover.of(revoked)
        for flight in left:
            self._handover.drop(flight)
        for partition in revoked:
            self._progress.forget(partition)
            self._ordering.forget(partition)
            self._quarantine.forget(partition)
            self._positions.forget(partition)
        took = round((time.monotonic() - began) * 1000)
        events.emit("partitions.revoked", partitions=names(revoked), batches_left=len(left), milliseconds=took)

    def _drain(self) -> None:
        """Finish the batches in flight; records that wait in memory are read again by the next bridge."""
        events.emit("process.stopping", in_flight=len(self._handover), unread=len(self._batcher))
        deadline = time.monotonic() + DRAIN_SECONDS
        while len(self._handover) and time.monotonic() < deadline:
            self._take_results(_SHORT_WAIT_SECONDS)
            self._handover.deliver_due(time.monotonic())
            self._publish_status()
        self._committer.commit_all()
