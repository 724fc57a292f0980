"""The task that stores a batch: what it stores, and what it reports after each kind of failure."""

from dataclasses import replace

import psycopg2
import pytest
import redis

from tasks.claim_check import Claim, Result, pack
from tasks.message import Record
from tasks.seal import Seal
from tasks.worker.persist import Persist
from tests.fakes import MemoryBatchStore, MemoryClaimStore

CLAIM = Claim("batch", 1, "orders", 0, 5, 7, 3, "reply", "id", 5)
RECORDS = [
    Record("orders", 0, 5, 1_700_000_000_000, None, b'{"n": 1}', ()),
    Record("orders", 0, 6, 1_700_000_000_000, None, b"not json", ()),
    Record("orders", 0, 7, 1_700_000_000_000, None, b'{"n": 2}', ()),
]


class Worker:
    """The task with stores in memory, and a batch that waits for it."""

    def __init__(self) -> None:
        self.task = Persist()
        self.task.claims = self.claims = MemoryClaimStore()
        self.task.store = self.store = MemoryBatchStore()
        self.task.seconds = 60
        self.task.calls_topic = "calls"
        self.task.seal = Seal("key")
        self.claims.put(CLAIM, pack(RECORDS))

    def run(self, claim: Claim = CLAIM, seal: str | None = None) -> None:
        """Run the task, and what Celery calls after an exception."""
        packed = self.claims.take(claim) if self.claims.failure is None else None
        seal = self.task.seal.of(claim.fields(), packed or b"") if seal is None else seal
        try:
            self.task.run({**claim.fields(), "seal": seal})
        except Exception as error:
            self.task.on_failure(error, "task", (claim.fields(),), {}, None)

    def result(self) -> Result:
        [result] = self.claims.results(CLAIM.reply_to, 0)
        return result


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_a_batch_is_stored_and_reported(worker: Worker) -> None:
    worker.run()
    assert worker.result() == Result("batch", 1, "stored", stored=2, dead=1, counted=1)
    assert [message.offset for _, message in worker.store.messages.values()] == [5, 7]
    assert [dead.record for dead in worker.store.dead.values()] == [RECORDS[1]]


def test_a_forged_batch_is_not_stored(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    worker.run(seal=Seal("another key").of(CLAIM.fields(), pack(RECORDS)))
    assert (worker.store.messages, worker.store.dead) == ({}, {})
    assert worker.claims.take(CLAIM) is None


def test_other_records_than_a_bridge_sealed_are_not_stored(worker: Worker) -> None:
    worker.run(seal=worker.task.seal.of(CLAIM.fields(), pack(RECORDS[:1])))
    assert worker.store.messages == {}


def test_a_task_that_runs_again_changes_nothing(worker: Worker) -> None:
    worker.run()
    worker.result()
    second = replace(CLAIM, attempt=2)
    worker.claims.put(second, pack(RECORDS))
    worker.run(second)
    assert worker.result() == Result("batch", 2, "stored", redelivered=3)


def test_a_stale_task_does_nothing(worker: Worker) -> None:
    worker.claims.discard(CLAIM)
    worker.run()
    assert worker.claims.results(CLAIM.reply_to, 0) == []
    assert worker.store.messages == {}


@pytest.mark.parametrize(
    ("failure", "outcome", "reason"),
    [
        (psycopg2.OperationalError("server closed the connection\nunexpectedly"), "failed", "server closed"),
        (redis.ConnectionError("Connection refused"), "failed", "Connection refused"),
        (RuntimeError("nobody expected this"), "killed", "RuntimeError: nobody expected this"),
    ],
)
def test_only_an_unexpected_error_is_blamed_on_a_record(
    worker: Worker, failure: Exception, outcome: str, reason: str
) -> None:
    worker.store.failure = failure
    worker.run()
    result = worker.result()
    assert (result.outcome, reason in result.reason) == (outcome, True)


def test_the_killer_of_workers_is_a_dead_letter_without_being_decoded(worker: Worker) -> None:
    alone = replace(CLAIM, records=1, dead_letter_reason="its worker process ended")
    worker.claims.put(alone, pack(RECORDS[:1]))
    worker.run(alone)
    assert worker.result() == Result("batch", 1, "stored", dead=1, counted=1)
    [dead] = worker.store.dead.values()
    assert (dead.record, dead.reason, dead.detail) == (RECORDS[0], "killed_its_worker", "its worker process ended")


@pytest.mark.parametrize(("decoded", "outcome"), [(False, "killed"), (True, "failed")])
def test_a_lost_process_is_blamed_only_while_it_decoded(worker: Worker, decoded: bool, outcome: str) -> None:
    worker.claims.take(CLAIM)
    if decoded:
        worker.claims.mark_decoded(CLAIM)
    worker.task.report_end((CLAIM.fields(),), "its worker process ended")
    assert worker.result().outcome == outcome


def test_a_store_of_claims_that_forgot_blames_nobody(worker: Worker) -> None:
    worker.claims.lose_everything()
    worker.task.report_end((CLAIM.fields(),), "its worker process ended")
    assert worker.result().outcome == "failed"
