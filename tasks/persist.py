"""The Celery task: fetch a batch, decode it, store it in one transaction, say what became of it."""

import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, NoReturn

import peewee
import psycopg2
import redis
from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Task
from celery.worker.request import Request
from kombu.asynchronous import get_event_loop

from tasks import claims, envelope, metrics, store, telemetry, traces
from tasks.claims import Claim, ClaimDesk, Outcome, Result
from tasks.database import TRANSIENT, database, explain
from tasks.envelope import Message, Record
from tasks.errors import AccessDenied, BadRecord
from tasks.store import Dead

NAME = "tasks.persist"
# What passes without a change of the record: services that are away, tables that init has yet to make.
_PASSING = (psycopg2.Error, peewee.PeeweeException, redis.RedisError)
_REPORT_AGAIN_SECONDS = 0.2
_timestamp = attrgetter("timestamp")
_IDS_SHOWN = 10  # in the line of a stored batch; small batches can so be found by message id


class PersistRequest(Request):  # type: ignore[misc]
    """Runs in the worker's parent process: sees what the task itself cannot report, its own end."""

    def acknowledge(self) -> None:
        """Tell Redis that the task is done."""
        self._settle(self.message.ack)

    def reject(self, requeue: bool = False) -> None:
        """Give the task back to Redis."""
        self._settle(lambda: self.message.reject(requeue=requeue))

    def _settle(self, say: Callable[[], None]) -> None:
        # Celery would only log that Redis did not hear it. The task would count as taken for ever, the
        # worker as full, and it would never read again. As an error of the event loop it connects anew.
        if self.acknowledged:
            return
        self.acknowledged: bool = True
        try:
            say()
        except (redis.RedisError, *self._connection_errors) as error:
            loop = get_event_loop()
            if loop is not None:  # else it is connecting anew already, or ending
                loop.call_soon(_raise, error)

    def on_failure(self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Called for an exception of the task, and when its process ended without one."""
        raised = exc_info.exception
        if isinstance(raised, ExceptionWithTraceback):
            raised = raised.exc
        if isinstance(raised, WorkerLostError):
            self.task.report_end(self.args, "its worker process ended")
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """Called when the task ran out of time; its process is then killed."""
        if not soft:
            self.task.report_end(self.args, f"it took longer than {timeout:.0f} s")
        return super().on_timeout(soft, timeout)


def _raise(error: Exception) -> NoReturn:
    raise error


class Persist(Task):  # type: ignore[misc]
    """Stores the batch that its claim stands for. Runs any number of times with the same effect as once."""

    name = NAME
    Request = PersistRequest
    throws = _PASSING  # said in one line by on_failure, without a traceback
    desk: ClaimDesk  # set by tasks.app.create_app
    seconds: float  # that a batch may take; set with it

    def run(self, fields: dict[str, Any]) -> None:
        """Store a batch. `fields` is a Claim; an exception means: not known to be stored, hand it over again."""
        claim = Claim.of(fields)
        with traces.storing(claim.topic, claim.place(), claim.traceparent):
            self._store(claim)

    def _store(self, claim: Claim) -> None:
        packed = self.desk.collect(claim)
        if packed is None:
            telemetry.emit("batch.stale", **claim.place())
            return
        records = claims.unpack(claim, packed)
        messages, dead = ([], []) if claim.bury else decode_all(records)
        self.desk.storing(claim)
        with database.connection_context():
            if claim.bury:
                outcome = store.bury(Dead(records[0], "killed_its_worker", claim.bury), self.seconds)
            else:
                outcome = store.store_batch(claim.topic, claim.partition, records, messages, dead, self.seconds)
        # First of all: what fails from here on must not be taken for a fault of a record that is stored.
        self._report(claim, _result(claim, outcome))
        _count(claim, records, outcome)
        _log(claim, messages, outcome)

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo) -> None:
        """Called in the worker process when `run` raised: the bridge decides when to try again."""
        if isinstance(exc, TimeLimitExceeded):
            return  # in the parent, whose loop must not wait for Redis; PersistRequest.on_timeout has said it
        claim = Claim.of(args[0])
        explained = explain(exc) if isinstance(exc, TRANSIENT) else None
        if isinstance(explained, AccessDenied):
            reason = str(explained)
        else:
            reason = f"{type(exc).__name__}: {str(exc).strip().splitlines()[0] if str(exc).strip() else ''}"
        telemetry.emit("batch.failed", **claim.place(), reason=reason)
        outcome: Outcome = "failed" if isinstance(exc, _PASSING) else "killed"
        self._report(claim, Result(claim.batch, claim.attempt, outcome, reason=reason))

    def _report(self, claim: Claim, result: Result) -> None:
        # The bridge waits for this, while the worker lives, until the batch's deadline; and without Redis
        # this process has nothing else to do.
        said = False
        while True:
            try:
                self.desk.report(claim, result)
                return
            except redis.RedisError as error:
                if not said:
                    telemetry.emit("service.unavailable", service="redis", reason=claims.explain(error))
                said = True
                time.sleep(_REPORT_AGAIN_SECONDS)

    def report_end(self, args: Sequence[Any], reason: str) -> None:
        """Tell the bridge that this batch's process ended before it could say anything.

        Called in the parent, which tries once: the bridge hands a batch over again when its deadline is over.
        A record is to blame only if the batch was still being decoded. Whatever happens once PostgreSQL was
        reached, a COMMIT may be under way, and the batch stored.
        """
        claim = Claim.of(args[0])
        outcome: Outcome = "failed"
        try:
            if self.desk.was_decoding(claim):
                outcome = "killed"
        except redis.RedisError as error:
            telemetry.emit("service.unavailable", service="redis", reason=claims.explain(error))
        reason = reason if outcome == "killed" else f"{reason}, perhaps while PostgreSQL stored its batch"
        telemetry.emit("batch.failed", **claim.place(), reason=reason)
        with contextlib.suppress(redis.RedisError):
            self.desk.report(claim, Result(claim.batch, claim.attempt, outcome, reason=reason))


def decode_all(records: Sequence[Record]) -> tuple[list[Message], list[Dead]]:
    """Split records into messages and dead letters, in order."""
    messages: list[Message] = []
    dead: list[Dead] = []
    decode = envelope.decode
    for record in records:
        try:
            messages.append(decode(record))
        except BadRecord as bad:
            dead.append(Dead(record, bad.reason, bad.detail))
    return messages, dead


def _result(claim: Claim, outcome: store.Stored) -> Result:
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


def _count(claim: Claim, records: Sequence[Record], outcome: store.Stored) -> None:
    metrics.STORED.add(outcome.stored, claim.topic)
    metrics.REDELIVERED.add(outcome.redelivered, claim.topic)
    metrics.DUPLICATES.add(len(outcome.duplicates), claim.topic)
    for reason, dead in Counter(dead.reason for dead in outcome.dead).items():
        metrics.DEAD.add(dead, claim.topic, reason)
    oldest = min(map(_timestamp, records))
    metrics.END_TO_END_SECONDS.observe(max(0.0, datetime.now(UTC).timestamp() - oldest / 1000), claim.topic)


def _log(claim: Claim, messages: Sequence[Message], outcome: store.Stored) -> None:
    counts = {
        "stored": outcome.stored,
        "redelivered": outcome.redelivered,
        "duplicates": len(outcome.duplicates),
        "dead": len(outcome.dead),
    }
    shown = [str(uuid.UUID(bytes=message.id)) for message in messages[:_IDS_SHOWN]]
    telemetry.emit("batch.stored", **claim.place(), **counts, ids=shown)
    for dead in outcome.dead:
        place = {"topic": dead.record.topic, "partition": dead.record.partition, "offset": dead.record.offset}
        telemetry.emit("message.dead", batch=claim.batch, **place, reason=dead.reason, detail=dead.detail)
    for message, stored_partition, stored_offset in outcome.duplicates:
        telemetry.emit(
            "message.duplicate",
            id=str(uuid.UUID(bytes=message.id)),
            batch=claim.batch,
            topic=claim.topic,
            partition=claim.partition,
            offset=message.offset,
            stored_partition=stored_partition,
            stored_offset=stored_offset,
        )
    if telemetry.wanted("message.stored"):
        for message in messages:
            telemetry.emit(
                "message.stored", id=str(uuid.UUID(bytes=message.id)), batch=claim.batch, offset=message.offset
            )
