"""The bridge: reads partitions, hands batches to Celery, commits what PostgreSQL has.

The loop only carries things from one part to the next. What is decided is decided in `batches`
(what travels together), `progress` (what may be committed) and `retries` (what happens to failures).
"""

import os
import signal
import threading
import time
from collections.abc import Collection
from types import FrameType
from typing import Any

from celery import Celery
from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from bridge import measures
from bridge.batches import Batcher
from bridge.clients import new_consumer, offsets, wait_for_brokers
from bridge.ends import Ends
from bridge.handover import Flight, Handover
from bridge.holding import Holding, Reason
from bridge.ordering import Ordering
from bridge.progress import Progress
from bridge.reporter import Reporter
from bridge.retries import verdict
from bridge.stops import Stops
from bridge.watchdog import Watchdog
from tasks import telemetry
from tasks.claims import Result
from tasks.errors import EXIT_OK
from tasks.settings import Settings

_COMMIT_SECONDS = 0.2
_STATUS_SECONDS = 0.5
_REVOKE_SECONDS = 5.0  # batches of lost partitions may finish for so long; others wait for us meanwhile
_DRAIN_SECONDS = 15.0  # within the 25 s a pod has to end
_END_SECONDS = _DRAIN_SECONDS + 2
_SHORT_WAIT_SECONDS = 0.05
_PAUSE_AFTER_SECONDS = 10.0  # not polling is cheap, but Kafka takes partitions from who never polls


class Bridge(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of the consumer group. `run` returns after SIGTERM or SIGINT, when all is committed."""

    def __init__(self, settings: Settings, app: Celery) -> None:
        self._settings = settings
        self._handover = Handover(settings, app)
        self._batcher: Batcher[TopicPartition, Any] = Batcher(
            settings.batch_records, settings.batch_bytes, settings.linger_ms / 1000
        )
        self._progress: Progress[TopicPartition] = Progress()
        self._ordering: Ordering[TopicPartition] = Ordering(settings.ordering)
        self._holding = Holding()
        self._status: dict[str, Any] = {}  # for the two threads, which must not look at what changes
        self._reporter = Reporter(settings, lambda: self._status)
        self._stops = Stops(settings, self._batcher, self._reporter)
        self._ends = Ends(settings)
        self._watchdog = Watchdog(settings.watchdog_seconds, lambda: self._status, self._ends.silent)
        self._paused = False
        self._consumer: KafkaConsumer = None
        self._stopping = False
        self._next_commit = self._next_status = 0.0

    def run(self) -> None:
        """Work until told to stop, then let batches in flight finish and commit them."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._consumer = wait_for_brokers(lambda: new_consumer(self._settings, self), self._waiting_for_kafka)
        self._gauges = measures.Gauges(self._consumer, self._ends, self._handover, self._batcher)
        self._reporter.start()
        self._watchdog.start()
        self._ends.start()
        while not self._stopping:
            self._turn()
        self._drain()
        self._reporter.end()
        self._consumer.close(autocommit=False)

    def _turn(self) -> None:
        """Results in, batches out, offsets to Kafka, records in. Everything the bridge does, in order."""
        self._take_results(0)
        self._hand_over()
        self._commit()
        self._stops.turn(self._consumer, time.monotonic())
        if self._must_hold():
            self._hold()
        else:
            self._read()
        self._tell()

    def _read(self) -> None:
        if self._paused:
            self._paused = False
            self._consumer.resume(*(self._consumer.paused() - self._stops.partitions))
        now = time.monotonic()
        due = self._batcher.due_in(now)
        idle = 0.1 if not len(self._handover) else 0.01  # with batches in flight, their results come soon
        # What is due already waits for its order, so for a result; it must not make the loop spin.
        timeout = idle if due is None else min(idle, max(due, 0.005))
        polled = self._consumer.poll(timeout_ms=int(timeout * 1000), max_records=self._settings.batch_records)
        if polled:
            measures.consumed(polled)
            self._batcher.add(polled, time.monotonic())

    def _must_hold(self) -> bool:
        now = time.monotonic()
        self._holding.turn(self._reason_to_hold(), now)
        return self._holding.reason is not None

    def _reason_to_hold(self) -> Reason | None:
        settings, handover = self._settings, self._handover
        if not handover.available:
            return "redis_away"
        if len(handover) >= settings.in_flight:
            return "database_away" if handover.failure() else "in_flight_full"
        if handover.size() >= settings.in_flight_bytes:
            return "bytes_full"
        return "ordering" if self._batcher.size() >= settings.in_flight_bytes else None

    def _hold(self) -> None:
        """Read nothing for a moment: short waits just do not poll, long ones pause and keep the membership."""
        now = time.monotonic()
        if now - self._holding.since > _PAUSE_AFTER_SECONDS:
            if not self._paused:
                telemetry.emit("partitions.paused", reason=self._holding.reason)
            self._paused = True
            self._consumer.pause(*self._consumer.assignment())
            self._batcher.add(self._consumer.poll(timeout_ms=0), now)
        self._take_results(_SHORT_WAIT_SECONDS)

    def _hand_over(self) -> None:
        now = time.monotonic()
        room = self._settings.in_flight - len(self._handover)
        for partition, records in self._batcher.cut(now, room, self._ordering.allowed):
            claim = self._handover.start(partition, records, now)
            self._progress.handed_over(partition, claim.batch, claim.last_offset + 1)
            self._ordering.handed_over(partition, claim.batch, records)
        self._handover.turn(now)

    def _take_results(self, wait_seconds: float) -> None:
        now = time.monotonic()
        for result in self._handover.results(wait_seconds, now):
            self._take(result, time.monotonic())

    def _take(self, result: Result, now: float) -> None:
        flight = self._handover.flight(result)
        if flight is None:
            return
        flight.kills += result.outcome == "killed"
        match verdict(result, flight.claim.records, flight.kills):
            case "done":
                self._stored(flight, result, now)
            case "again":
                self._handover.again(flight, result.reason, now)
            case "split":
                telemetry.emit("batch.split", **flight.claim.place(), reason=result.reason)
                parts = self._handover.split(flight, now, in_order=self._ordering.kind != "none")
                ends = [(part.batch, part.last_offset + 1) for part in parts]
                self._progress.split(flight.partition, result.batch, ends)
                self._ordering.split(flight.partition, result.batch, [part.batch for part in parts])
            case "bury":
                self._handover.bury(flight, result.reason, now)

    def _stored(self, flight: Flight, result: Result, now: float) -> None:
        measures.stored(flight, now)
        self._handover.drop(flight)
        self._progress.stored(flight.partition, result.batch)
        self._ordering.done(flight.partition, result.batch)
        self._watchdog.progressed_at = now
        self._stops.count(self._consumer, flight.partition, flight.claim.records, result.counted)

    def _tell(self) -> None:
        """Keep watchdog, reporter and log up to date."""
        now = time.monotonic()
        self._watchdog.turned_at = now
        waiting = len(self._handover) or self._batcher.due_in(now) is not None
        if not (waiting or self._undelivered()) or self._handover.failure() or not self._handover.available:
            self._watchdog.progressed_at = now
        if now >= self._next_status:
            self._next_status = now + _STATUS_SECONDS
            self._status = self._state(now)
            self._gauges.tell(self._holding, self._stops, now)
        news = self._holding.news(now)
        if news == (None,):
            telemetry.emit("bridge.reading")
        elif news is not None:
            telemetry.emit("bridge.holding", reason=news[0], failure=self._handover.failure())

    def _undelivered(self) -> bool:
        """Whether Kafka has records of ours that its client has not handed us."""
        return self._ends.undelivered(self._consumer, self._consumer.assignment() - self._stops.partitions)

    def _state(self, now: float) -> dict[str, Any]:
        """All that is worth knowing of this bridge."""
        held = self._holding.seconds(now) | self._stops.holding.seconds(now)
        return {
            "holding": self._holding.reason,
            "held_seconds": {reason: round(seconds, 1) for reason, seconds in held.items()},
            "failure": self._handover.failure(),
            "in_flight": len(self._handover),
            "in_flight_bytes": self._handover.size(),
            "waiting": len(self._batcher),
            "undelivered": self._undelivered(),
            "partitions": _names(self._consumer.assignment()),
            "stopped": _names(self._stops.partitions),
        }

    def _commit(self) -> None:
        now = time.monotonic()
        if now < self._next_commit:
            return
        self._next_commit = now + _COMMIT_SECONDS
        positions = self._progress.to_commit()
        if positions:
            self._consumer.commit_async(offsets(positions), callback=self._on_committed)

    def _on_committed(self, requested: dict[TopicPartition, Any], response: Any) -> None:
        if isinstance(response, Exception):
            telemetry.emit("offset.refused", reason=str(response))
            return
        for partition, position in requested.items():
            self._progress.committed(partition, position.offset)
            telemetry.emit(
                "offset.committed", topic=partition.topic, partition=partition.partition, offset=position.offset
            )

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Called by the client in a poll, before the first record of `assigned`."""
        telemetry.emit("partitions.assigned", partitions=_names(assigned))
        self._stops.apply(self._consumer, self._stops.partitions)  # those of them that are stopped stay so

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Called by the client in a poll: let what is in flight finish for a while, commit it, forget the rest."""
        if not revoked:
            return
        for partition in revoked:
            self._batcher.drop(partition)
        deadline = time.monotonic() + _REVOKE_SECONDS
        while self._handover.of(revoked) and self._handover.available and time.monotonic() < deadline:
            self._take_results(_SHORT_WAIT_SECONDS)
            self._handover.turn(time.monotonic())
        positions = {p: offset for p, offset in self._progress.to_commit().items() if p in revoked}
        if positions:
            self._commit_now(positions)
        left = self._handover.of(revoked)
        for flight in left:
            self._handover.drop(flight)
        for partition in revoked:
            self._progress.forget(partition)
            self._ordering.forget(partition)
            self._stops.forget(partition)
        telemetry.emit("partitions.revoked", partitions=_names(revoked), batches_left=len(left))

    def _commit_now(self, positions: dict[TopicPartition, int]) -> None:
        try:
            self._consumer.commit(offsets(positions))
        except KafkaError as error:
            # Whoever reads these records next stores them again, which changes nothing.
            telemetry.emit("offset.refused", reason=str(error))

    def _drain(self) -> None:
        """Finish what was handed over; what only waits in memory is read again by the next bridge."""
        telemetry.emit("process.stopping", in_flight=len(self._handover), unread=len(self._batcher))
        deadline = time.monotonic() + _DRAIN_SECONDS
        while len(self._handover) and time.monotonic() < deadline:
            self._take_results(_SHORT_WAIT_SECONDS)
            self._handover.turn(time.monotonic())
            self._tell()
        positions = self._progress.to_commit()
        if positions:
            self._commit_now(positions)

    def _waiting_for_kafka(self, reason: str) -> bool:
        telemetry.emit("service.unavailable", service="kafka", reason=reason)
        return not self._stopping

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        # Kafka's client waits without end for a broker that is away; what is not committed is read again.
        end = threading.Timer(_END_SECONDS, os._exit, [EXIT_OK])
        end.daemon = True
        end.start()


def _names(partitions: Collection[TopicPartition]) -> list[str]:
    return sorted(f"{p.topic}/{p.partition}" for p in partitions)
