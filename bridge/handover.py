"""Hands batches to Celery through Redis, and redelivers them until they are stored: Redis may lose everything."""

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import redis
from kombu.exceptions import OperationalError

from bridge import retries
from bridge.continuity import HasOffset
from bridge.kafka.types import ConsumedRecord, TopicPartition
from tasks import claim_check, claim_store
from tasks.claim_check import Claim, ClaimStore, Result
from tasks.observability import events, metrics, traces
from tasks.seal import Seal

_AWAY = (redis.RedisError, OperationalError)
_WATCH_SECONDS = 1.0
_UNTAKEN_SECONDS = 8.0  # a batch that no worker took by then was lost with a worker that had reserved it
# The worker's own time limit starts when it takes the batch, and must end first: the worker knows what took so long.
_GRACE_SECONDS = _UNTAKEN_SECONDS + 4


@dataclass
class Flight:
    """A batch that is not stored yet. `due` is when it is handed over or redelivered."""

    partition: TopicPartition
    claim: Claim
    packed: bytes
    due: float
    contexts: Sequence[str] = ()  # trace contexts of its messages
    after: str | None = None  # the batch that must be stored first, where order matters
    handed_at: float | None = None  # None while it waits for its delivery
    kills: int = 0  # workers it killed
    failure: str = ""  # why the last attempt failed


class Handover:
    """The batches in flight: those that the bridge starts; none is dropped before it is stored.

    `available` is False while Redis is away; nothing is handed over or read then, and nothing is lost.
    """

    def __init__(
        self, claims: ClaimStore, enqueue: Callable[[Claim], None], seal: Seal, batch_deadline_seconds: float
    ) -> None:
        """`enqueue` sends the Celery task of a claim, and raises OperationalError while Redis is unavailable."""
        self._claims = claims
        self._enqueue = enqueue
        self._seal = seal
        self._deadline_seconds = batch_deadline_seconds + _GRACE_SECONDS
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
        """Why batches are not being stored; empty if no attempt has failed."""
        return next((flight.failure for flight in self._flights.values() if flight.failure), "")

    def attempts(self) -> dict[str, int]:
        """The batches in flight with their attempts, for the log."""
        return {flight.claim.batch: flight.claim.attempt for flight in self._flights.values()}

    def start(
        self, partition: TopicPartition, topic_id: str, begin: int, records: Sequence[ConsumedRecord], now: float
    ) -> Claim:
        """Start a batch; `deliver_due` hands it over. See Claim for `topic_id` and `begin`."""
        begin = min(begin, records[0].offset)  # the topic was truncated or recreated, which is not noticed yet
        claim = self._claim(partition, topic_id, begin, records)
        self._flights[claim.batch] = Flight(partition, claim, claim_check.pack(records), now, traces.contexts(records))
        return claim

    def deliver_due(self, now: float) -> None:
        """Hand over new batches; redeliver failed ones after their back-off and those past their deadline."""
        if not self.available and now < self._retry_at:
            return
        try:
            # While Redis is away, this also checks whether it is back.
            if now >= self._next_watch or not self.available:
                self._next_watch = now + _WATCH_SECONDS
                self._find_lost(now)
            for flight in self._flights.values():
                if flight.due <= now and flight.after not in self._flights:
                    self._hand_over(flight, now)
            self._back()
        except _AWAY as error:
            self._away(error, now)

    def results(self, wait_seconds: float, now: float) -> list[Result]:
        """What workers reported; waits up to `wait_seconds` for the first result."""
        if not self.available:
            time.sleep(wait_seconds)
            return []
        try:
            return self._claims.results(self._reply_to, wait_seconds)
        except _AWAY as error:
            self._away(error, now)
            return []

    def flight(self, result: Result) -> Flight | None:
        """The batch of a result; None if it is stored or dropped, or if the result is a failure of an older attempt."""
        flight = self._flights.get(result.batch)
        if flight is None or (result.outcome != "stored" and result.attempt != flight.claim.attempt):
            return None
        return flight

    def retry(self, flight: Flight, reason: str, now: float) -> None:
        """Redeliver a failed batch after its back-off."""
        flight.due = now + retries.backoff(flight.claim.attempt)
        flight.failure = reason
        flight.handed_at = None

    def dead_letter(self, flight: Flight, reason: str, now: float) -> None:
        """Have the only record of a batch stored as a dead letter, without decoding it."""
        flight.claim = replace(flight.claim, dead_letter_reason=reason)
        self.retry(flight, reason, now)

    def split(self, flight: Flight, now: float, in_order: bool) -> list[Claim]:
        """Replace a batch by its halves, the second to be stored after the first if `in_order`."""
        parts: list[Claim] = []
        for records in claim_check.halves(flight.claim, flight.packed):
            begin = parts[-1].last_offset + 1 if parts else flight.claim.begin
            claim = self._claim(flight.partition, flight.claim.topic_id, begin, records)
            after = parts[-1].batch if parts and in_order else flight.after
            packed, contexts = claim_check.pack(records), traces.contexts(records)
            self._flights[claim.batch] = Flight(flight.partition, claim, packed, now, contexts, after)
            parts.append(claim)
        for other in self._flights.values():
            if other.after == flight.claim.batch:
                other.after = parts[-1].batch
        self.drop(flight)
        return parts

    def drop(self, flight: Flight) -> None:
        """Forget a batch: it is stored, or its partition was revoked."""
        del self._flights[flight.claim.batch]

    def of(self, partitions: Iterable[TopicPartition]) -> list[Flight]:
        """The batches in flight of some partitions."""
        selected = set(partitions)
        return [flight for flight in self._flights.values() if flight.partition in selected]

    def _claim(self, partition: TopicPartition, topic_id: str, begin: int, records: Sequence[HasOffset]) -> Claim:
        return Claim(
            batch=uuid.uuid4().hex[:16],
            attempt=0,
            topic=partition.topic,
            partition=partition.partition,
            first_offset=records[0].offset,
            last_offset=records[-1].offset,
            records=len(records),
            reply_to=self._reply_to,
            topic_id=topic_id,
            begin=begin,
        )

    def _hand_over(self, flight: Flight, now: float) -> None:
        previous, claim = flight.claim, replace(flight.claim, attempt=flight.claim.attempt + 1)
        if previous.attempt:
            self._claims.discard(previous)  # a task that still carries the old claim finds no records
        with traces.handing_over(claim.topic, claim.records, claim.attempt, flight.contexts) as context:
            claim = replace(claim, traceparent=context, seal="")
            claim = replace(claim, seal=self._seal.of(claim.fields(), flight.packed))
            self._claims.put(claim, flight.packed)
            self._enqueue(claim)
        flight.claim = claim
        flight.due = now + self._deadline_seconds
        flight.handed_at = now
        (metrics.REDELIVERED_BATCHES if previous.attempt else metrics.HANDED_OVER).add(1, claim.topic)
        events.emit("batch.redelivered" if previous.attempt else "batch.handed_over", **claim.place())

    def _find_lost(self, now: float) -> None:
        """Make batches due whose records or worker are lost, and those that no worker takes.

        The records of a stored batch are gone, too, so its result must have been read first.
        """
        delivered = [flight for flight in self._flights.values() if flight.handed_at is not None]
        statuses = self._claims.status([flight.claim for flight in delivered])
        if self._claims.length(self._reply_to):
            return  # results are waiting: check again when they are read
        for flight, status in zip(delivered, statuses, strict=True):
            waited = 0.0 if flight.handed_at is None else now - flight.handed_at
            if status == "lost" or (status == "waiting" and waited > _UNTAKEN_SECONDS):
                flight.due = now

    def _away(self, error: Exception, now: float) -> None:
        self._retry_at = now + 0.5
        if self.available:
            self.available = False
            events.emit("service.unavailable", service="redis", reason=claim_store.explain(error))

    def _back(self) -> None:
        if not self.available:
            self.available = True
            events.emit("service.available", service="redis")
