"""Hands batches to Celery through Redis, and again until each is stored: Redis may lose everything, any time."""

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis
from celery import Celery
from kafka.structs import TopicPartition
from kombu.exceptions import OperationalError

from bridge import retries
from tasks import claims, metrics, persist, telemetry, traces
from tasks.claims import Claim, ClaimDesk, Result
from tasks.settings import Settings

_AWAY = (redis.RedisError, OperationalError)
_WATCH_SECONDS = 1.0
_UNTAKEN_SECONDS = 8.0  # a batch no worker took for so long went with a worker that had reserved it
# The worker's own limit runs from when it took the batch, and has to come first: it knows what took so long.
_GRACE_SECONDS = _UNTAKEN_SECONDS + 4


@dataclass
class Flight:
    """A batch that is not stored yet. `due` is when it is handed over (again)."""

    partition: TopicPartition
    claim: Claim
    packed: bytes
    due: float
    contexts: Sequence[str] = ()  # of its messages' traces
    after: str | None = None  # the batch that has to be stored before, where order counts
    handed_at: float | None = None  # None while it waits to be handed over (again)
    kills: int = 0  # workers it ended
    failure: str = ""  # why it was not stored when it was last tried


class Handover:
    """The batches in flight, at most as many as the bridge starts; none is dropped before it is stored.

    `available` is False while Redis is away; then nothing is handed over or read, and nothing is lost.
    """

    def __init__(self, settings: Settings, app: Celery) -> None:
        assert settings.redis_url is not None
        self._desk = ClaimDesk(settings.redis_url)
        self._task = app.tasks[persist.NAME]
        self._deadline_seconds = settings.batch_deadline_seconds + _GRACE_SECONDS
        self._reply_to = f"backend:results:{uuid.uuid4()}"
        self._flights: dict[str, Flight] = {}
        self._next_watch = 0.0
        self._retry_at = 0.0
        self.available = True

    def __len__(self) -> int:
        return len(self._flights)

    def size(self) -> int:
        """Bytes in flight."""
        return sum(len(flight.packed) for flight in self._flights.values())

    def failure(self) -> str:
        """Why batches are not stored at the moment; empty when nothing is known to be wrong."""
        return next((flight.failure for flight in self._flights.values() if flight.failure), "")

    def attempts(self) -> dict[str, int]:
        """The batches in flight with the number of times each was handed over, for the log."""
        return {flight.claim.batch: flight.claim.attempt for flight in self._flights.values()}

    def start(self, partition: TopicPartition, records: Sequence[Any], now: float) -> Claim:
        """Take a batch of records; `turn` hands it over."""
        claim = self._claim(partition, records[0].offset, records[-1].offset, len(records))
        self._flights[claim.batch] = Flight(partition, claim, claims.pack(records), now, traces.contexts(records))
        return claim

    def turn(self, now: float) -> None:
        """Hand over what is due: new batches, failed ones after their back-off, those past their deadline."""
        if not self.available and now < self._retry_at:
            return
        try:
            if now >= self._next_watch or not self.available:  # away, this also asks whether it is back
                self._next_watch = now + _WATCH_SECONDS
                self._find_lost(now)
            for flight in self._flights.values():
                if flight.due <= now and flight.after not in self._flights:
                    self._hand_over(flight, now)
            self._back()
        except _AWAY as error:
            self._away(error, now)

    def results(self, wait_seconds: float, now: float) -> list[Result]:
        """What workers reported; waits up to `wait_seconds` for a first one."""
        if not self.available:
            time.sleep(wait_seconds)
            return []
        try:
            return self._desk.results(self._reply_to, wait_seconds)
        except _AWAY as error:
            self._away(error, now)
            return []

    def flight(self, result: Result) -> Flight | None:
        """The batch that a result speaks of, unless it is stored or forgotten, or a failure of an older attempt."""
        flight = self._flights.get(result.batch)
        if flight is None or (result.outcome != "stored" and result.attempt != flight.claim.attempt):
            return None
        return flight

    def again(self, flight: Flight, reason: str, now: float) -> None:
        """Hand a failed batch over once more, after its back-off."""
        flight.due = now + retries.backoff(flight.claim.attempt)
        flight.failure = reason
        flight.handed_at = None

    def bury(self, flight: Flight, reason: str, now: float) -> None:
        """Have the only record of a batch written to dead_letter, undecoded."""
        flight.claim = replace(flight.claim, bury=reason)
        self.again(flight, reason, now)

    def split(self, flight: Flight, now: float, in_order: bool) -> list[Claim]:
        """Replace a batch by its halves, the second to be stored after the first if `in_order`."""
        parts: list[Claim] = []
        for records in claims.halves(flight.claim, flight.packed):
            claim = self._claim(flight.partition, records[0].offset, records[-1].offset, len(records))
            after = parts[-1].batch if parts and in_order else flight.after
            packed, contexts = claims.pack(records), traces.contexts(records)
            self._flights[claim.batch] = Flight(flight.partition, claim, packed, now, contexts, after)
            parts.append(claim)
        for other in self._flights.values():
            if other.after == flight.claim.batch:
                other.after = parts[-1].batch
        self.drop(flight)
        return parts

    def drop(self, flight: Flight) -> None:
        """Forget a batch: it is stored, or no longer ours."""
        del self._flights[flight.claim.batch]

    def of(self, partitions: Iterable[TopicPartition]) -> list[Flight]:
        """The batches in flight of some partitions."""
        wanted = set(partitions)
        return [flight for flight in self._flights.values() if flight.partition in wanted]

    def _claim(self, partition: TopicPartition, first: int, last: int, records: int) -> Claim:
        return Claim(
            batch=uuid.uuid4().hex[:16],
            attempt=0,
            topic=partition.topic,
            partition=partition.partition,
            first_offset=first,
            last_offset=last,
            records=records,
            reply_to=self._reply_to,
        )

    def _hand_over(self, flight: Flight, now: float) -> None:
        previous, claim = flight.claim, replace(flight.claim, attempt=flight.claim.attempt + 1)
        if previous.attempt:
            self._desk.discard(previous)  # a task that still carries the old claim finds nothing to do
        with traces.handing_over(claim.topic, claim.records, claim.attempt, flight.contexts) as context:
            claim = replace(claim, traceparent=context)
            self._desk.deposit(claim, flight.packed)
            self._task.apply_async(args=(claim.fields(),), retry=False)
        flight.claim = claim
        flight.due = now + self._deadline_seconds
        flight.handed_at = now
        (metrics.HANDED_OVER_AGAIN if previous.attempt else metrics.HANDED_OVER).add(1, claim.topic)
        telemetry.emit("batch.handed_over_again" if previous.attempt else "batch.handed_over", **claim.place())

    def _find_lost(self, now: float) -> None:
        """Make batches due whose records or worker are lost, and those that no worker takes.

        A stored batch's records are gone too, so results are read first.
        """
        handed = [flight for flight in self._flights.values() if flight.handed_at is not None]
        where = self._desk.whereabouts([flight.claim for flight in handed])
        if self._desk.unread(self._reply_to):
            return  # results are waiting: look again when they are read
        for flight, whereabouts in zip(handed, where, strict=True):
            untaken = whereabouts == "waiting" and now - (flight.handed_at or now) > _UNTAKEN_SECONDS
            if whereabouts == "lost" or untaken:
                flight.due = now

    def _away(self, error: Exception, now: float) -> None:
        self._retry_at = now + 0.5
        if self.available:
            self.available = False
            telemetry.emit("service.unavailable", service="redis", reason=claims.explain(error))

    def _back(self) -> None:
        if not self.available:
            self.available = True
            telemetry.emit("service.available", service="redis")
