"""Hands batches to Celery through Redis, and again until each is stored: Redis may lose everything, any time."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis
from celery import Celery
from kafka.structs import TopicPartition
from kombu.exceptions import OperationalError

from bridge import retries
from tasks import claims, persist, telemetry
from tasks.claims import Claim, ClaimDesk, Result
from tasks.settings import Settings

_AWAY = (redis.RedisError, OperationalError)
_WATCH_SECONDS = 1.0


@dataclass
class Flight:
    """A batch that is not stored yet. `due` is when it is handed over (again)."""

    partition: TopicPartition
    claim: Claim
    packed: bytes
    due: float
    handed: bool = False  # a worker has it, or soon will


class Handover:
    """The batches in flight, at most as many as the bridge starts; none is dropped before it is stored.

    `available` is False while Redis is away; then nothing is handed over or read, and nothing is lost.
    """

    def __init__(self, settings: Settings, app: Celery) -> None:
        assert settings.redis_url is not None
        self._desk = ClaimDesk(settings.redis_url)
        self._task = app.tasks[persist.NAME]
        self._deadline_seconds = settings.batch_deadline_seconds
        self._reply_to = f"backend:results:{uuid.uuid4()}"
        self._flights: dict[str, Flight] = {}
        self._next_watch = 0.0
        self._retry_at = 0.0
        self.available = True

    def __len__(self) -> int:
        return len(self._flights)

    def start(self, partition: TopicPartition, records: Sequence[Any], now: float) -> Claim:
        """Take a batch of records; `turn` hands it over."""
        claim = self._claim(partition, records[0].offset, records[-1].offset, len(records))
        self._flights[claim.batch] = Flight(partition, claim, claims.pack(records), due=now)
        return claim

    def turn(self, now: float) -> None:
        """Hand over what is due: new batches, failed ones after their back-off, those past their deadline."""
        if not self.available and now < self._retry_at:
            return
        try:
            if now >= self._next_watch:
                self._next_watch = now + _WATCH_SECONDS
                self._find_lost(now)
            for flight in self._flights.values():
                if flight.due <= now:
                    self._hand_over(flight, now)
            self._back()
        except _AWAY as error:
            self._away(error, now)

    def results(self, wait_seconds: float, now: float) -> list[Result]:
        """What workers reported; waits up to `wait_seconds` for a first one."""
        if not self.available:
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

    def again(self, flight: Flight, now: float) -> None:
        """Hand a failed batch over once more, after its back-off."""
        flight.due = now + retries.backoff(flight.claim.attempt)
        flight.handed = False

    def bury(self, flight: Flight, reason: str, now: float) -> None:
        """Have the only record of a batch written to dead_letter, undecoded."""
        flight.claim = replace(flight.claim, bury=reason)
        flight.due = now

    def split(self, flight: Flight, now: float) -> list[Claim]:
        """Replace a batch by its halves."""
        parts = []
        for records in claims.halves(flight.claim, flight.packed):
            claim = self._claim(flight.partition, records[0].offset, records[-1].offset, len(records))
            self._flights[claim.batch] = Flight(flight.partition, claim, claims.pack(records), due=now)
            parts.append(claim)
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
        self._desk.deposit(claim, flight.packed)
        self._task.apply_async(args=(claim.fields(),), retry=False)
        flight.claim = claim
        flight.due = now + self._deadline_seconds
        flight.handed = True
        telemetry.emit("batch.handed_over_again" if previous.attempt else "batch.handed_over", **claim.place())

    def _find_lost(self, now: float) -> None:
        """Make batches due whose records Redis lost. A stored batch's are gone too, so results are read first."""
        handed = [flight for flight in self._flights.values() if flight.handed]
        missing = {claim.batch for claim in self._desk.missing([flight.claim for flight in handed])}
        if self._desk.unread(self._reply_to):
            return  # results are waiting: look again when they are read
        for flight in handed:
            if flight.claim.batch in missing:
                flight.due = now

    def _away(self, error: Exception, now: float) -> None:
        self._retry_at = now + 0.5
        if self.available:
            self.available = False
            telemetry.emit("service.unavailable", service="redis", reason=str(error))

    def _back(self) -> None:
        if not self.available:
            self.available = True
            telemetry.emit("service.available", service="redis")
