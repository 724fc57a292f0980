"""The Celery task that stores a batch: fetch, decode, store in one transaction, report the result."""

import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, TypeVar

import peewee
import psycopg2
import redis
from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Task

from tasks import calls, claim_check, claim_store
from tasks import message as envelope
from tasks.claim_check import Claim, ClaimStore, Outcome, Result
from tasks.errors import AccessDenied, BadRecord
from tasks.message import Message, Record
from tasks.observability import events, metrics, traces
from tasks.seal import Seal
from tasks.store import batches
from tasks.store.batches import BatchStore, Dead
from tasks.store.calls import Call
from tasks.store.connection import TRANSIENT, explain
from tasks.store.spans import Source, Span
from tasks.worker.request import SettledRequest, cause
from tasks.worker.wakes import Wakes

NAME = "tasks.persist"
T = TypeVar("T")
# Errors that do not depend on the record: unavailable services, tables that init has not created yet.
_PASSING = (psycopg2.Error, peewee.PeeweeException, redis.RedisError)
_REPORT_AGAIN_SECONDS = 0.2
_timestamp = attrgetter("timestamp")
_IDS_SHOWN = 10  # in the line of a stored batch, so that small batches can be found by message id


class PersistRequest(SettledRequest):
    """Runs in the parent of the worker processes: reports what the task cannot, the end of its process."""

    def on_failure(self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Called for an exception of the task, and when its process ended."""
        if isinstance(cause(exc_info), WorkerLostError):
            self.task.report_end(self.args, "its worker process ended")
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """Called when the task exceeded its time limit; its process is then killed."""
        if not soft:
            self.task.report_end(self.args, f"it took longer than {timeout:.0f} s")
        return super().on_timeout(soft, timeout)


class Persist(Task):  # type: ignore[misc]
    """Stores the batch of a claim. Running it any number of times has the same effect as once."""

    name = NAME
    Request = PersistRequest
    throws = _PASSING  # on_failure logs one line, without a traceback
    # Set by tasks.worker.app.create_app:
    claims: ClaimStore
    store: BatchStore
    seal: Seal
    wakes: Wakes
    seconds: float  # the time limit of a batch
    calls_topic: str | None  # the topic of calls of the users' tasks

    def enqueue(self, claim: Claim) -> None:
        """Send the task of a claim. Raises kombu.exceptions.OperationalError while Redis is unavailable."""
        # What Celery's tools show of the task: where its records are, and not the seal.
        shown = " ".join(f"{name}={value}" for name, value in claim.place().items())
        self.apply_async(args=(claim.fields(),), argsrepr=shown, retry=False)

    def run(self, fields: dict[str, Any]) -> None:
        """Store a batch. `fields` is a Claim. After an exception it may not be stored, so it is redelivered."""
        claim = Claim.of(fields)
        with traces.storing(claim.topic, claim.place(), claim.traceparent):
            self._store(claim, fields)

    def _store(self, claim: Claim, fields: dict[str, Any]) -> None:
        packed = self.claims.take(claim)
        if packed is None:
            events.emit("batch.stale", **claim.place())
            return
        if not self.seal.fits(fields, packed):
            events.emit("batch.forged", **claim.place())
            self.claims.discard(claim)  # its bridge, if there is one, redelivers it
            return
        records = claim_check.unpack(claim, packed)
        messages: Sequence[Message] = ()
        called: Sequence[Call] = ()
        if claim.dead_letter_reason:
            dead: Sequence[Dead] = [Dead(records[0], "killed_its_worker", claim.dead_letter_reason)]
        elif claim.topic == self.calls_topic:
            called, dead = _decode_each(records, calls.decode)
        else:
            messages, dead = decode_all(records)
        self.claims.mark_decoded(claim)
        span = Span(Source(claim.topic, claim.topic_id, claim.partition), claim.begin, claim.last_offset + 1)
        outcome = self.store.store_batch(span, records, messages, dead, self.seconds, called)
        # Before anything else: a later failure must not be blamed on a record that is stored.
        self._report(claim, _result(claim, outcome))
        if outcome.tasks:
            with contextlib.suppress(redis.RedisError):  # what is to be run is found anyway, a second later
                self.wakes.send(outcome.tasks)
        _count(claim, records, outcome)
        _log(claim, messages, called, outcome)

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo) -> None:
        """Called in the worker process after an exception of `run`: the bridge decides when to retry."""
        if isinstance(exc, TimeLimitExceeded):
            return  # in the parent, whose loop must not wait for Redis; PersistRequest.on_timeout has reported it
        claim = Claim.of(args[0])
        explained = explain(exc) if isinstance(exc, TRANSIENT) else None
        if isinstance(explained, AccessDenied):
            reason = str(explained)
        else:
            reason = f"{type(exc).__name__}: {str(exc).strip().splitlines()[0] if str(exc).strip() else ''}"
        events.emit("batch.failed", **claim.place(), reason=reason)
        outcome: Outcome = "failed" if isinstance(exc, _PASSING) else "killed"
        self._report(claim, Result(claim.batch, claim.attempt, outcome, reason=reason))

    def _report(self, claim: Claim, result: Result) -> None:
        # The bridge waits for this, while the worker lives, until the batch's deadline; and without Redis
        # this process has nothing else to do.
        reported = False
        while True:
            try:
                self.claims.report(claim, result)
                return
            except redis.RedisError as error:
                if not reported:
                    events.emit("service.unavailable", service="redis", reason=claim_store.explain(error))
                reported = True
                time.sleep(_REPORT_AGAIN_SECONDS)

    def report_end(self, args: Sequence[Any], reason: str) -> None:
        """Report to the bridge that the process of this batch ended without a report.

        Called in the parent, which tries once: the bridge redelivers a batch after its deadline.
        A record is the cause only if the batch was still being decoded. Once PostgreSQL was reached,
        a COMMIT may be in progress, or the batch may be stored.
        """
        claim = Claim.of(args[0])
        outcome: Outcome = "failed"
        try:
            if self.claims.is_decoding(claim):
                outcome = "killed"
        except redis.RedisError as error:
            events.emit("service.unavailable", service="redis", reason=claim_store.explain(error))
        reason = reason if outcome == "killed" else f"{reason}, perhaps while PostgreSQL stored its batch"
        events.emit("batch.failed", **claim.place(), reason=reason)
        with contextlib.suppress(redis.RedisError):
            self.claims.report(claim, Result(claim.batch, claim.attempt, outcome, reason=reason))


def decode_all(records: Sequence[Record]) -> tuple[list[Message], list[Dead]]:
    """Split records into messages and dead letters, in order."""
    return _decode_each(records, envelope.decode)


def _decode_each(records: Sequence[Record], decode: Callable[[Record], T]) -> tuple[list[T], list[Dead]]:
    decoded: list[T] = []
    dead: list[Dead] = []
    for record in records:
        try:
            decoded.append(decode(record))
        except BadRecord as bad:
            dead.append(Dead(record, bad.reason, bad.detail))
    return decoded, dead


def _result(claim: Claim, outcome: batches.Stored) -> Result:
    return Result(
        claim.batch,
        claim.attempt,
        "stored",
        outcome.stored,
        outcome.redelivered,
        len(outcome.duplicates),
        len(outcome.dead),
        sum(dead.counts() for dead in outcome.dead),
    )


def _count(claim: Claim, records: Sequence[Record], outcome: batches.Stored) -> None:
    metrics.STORED.add(outcome.stored, claim.topic)
    metrics.REDELIVERED.add(outcome.redelivered, claim.topic)
    metrics.DUPLICATES.add(len(outcome.duplicates), claim.topic)
    for reason, dead in Counter(dead.reason for dead in outcome.dead).items():
        metrics.DEAD.add(dead, claim.topic, reason)
    oldest = min(map(_timestamp, records))
    if envelope.produced_at(oldest) is None:  # rare: the others are looked at one by one
        known = [at for at in map(envelope.produced_at, map(_timestamp, records)) if at is not None]
        oldest = min(known, default=None)
    if oldest is not None:
        metrics.END_TO_END_SECONDS.observe(max(0.0, datetime.now(UTC).timestamp() - oldest / 1000), claim.topic)


def _log(claim: Claim, messages: Sequence[Message], called: Sequence[Call], outcome: batches.Stored) -> None:
    counts = {
        "stored": outcome.stored,
        "redelivered": outcome.redelivered,
        "duplicates": len(outcome.duplicates),
        "dead": len(outcome.dead),
    }
    shown = [str(uuid.UUID(bytes=message.id)) for message in messages[:_IDS_SHOWN]]
    shown += [str(call.id) for call in called[:_IDS_SHOWN]]
    events.emit("batch.stored", **claim.place(), **counts, ids=shown)
    for dead in outcome.dead:
        place = {"topic": dead.record.topic, "partition": dead.record.partition, "offset": dead.record.offset}
        events.emit("record.dead_lettered", batch=claim.batch, **place, reason=dead.reason, detail=dead.detail)
    for message, stored_partition, stored_offset in outcome.duplicates:
        events.emit(
            "message.duplicate",
            id=str(uuid.UUID(bytes=message.id)),
            batch=claim.batch,
            topic=claim.topic,
            partition=claim.partition,
            offset=message.offset,
            stored_partition=stored_partition,
            stored_offset=stored_offset,
        )
    if events.is_logged("message.stored"):
        for message in messages:
            events.emit("message.stored", id=str(uuid.UUID(bytes=message.id)), batch=claim.batch, offset=message.offset)
