"""Batches in flight: handed over once, redelivered until they are stored, whatever Redis and workers lose."""

import pytest
import redis
from kombu.exceptions import OperationalError

from bridge.handover import Flight, Handover
from bridge.kafka.types import TopicPartition
from tasks.claim_check import Claim, Outcome, Result, unpack
from tasks.message import Record
from tasks.seal import Seal
from tests.fakes import MemoryClaimStore

PARTITION = TopicPartition("orders", 0)
DEADLINE_SECONDS = 60


class Bench:
    """A handover with a claim store in memory; `queue` has the claims of the tasks that were sent."""

    def __init__(self) -> None:
        self.claims = MemoryClaimStore()
        self.queue: list[Claim] = []
        self.handover = Handover(self.claims, self._enqueue, Seal("key"), DEADLINE_SECONDS)

    def start(self, *offsets: int, begin: int | None = None) -> Claim:
        records = [Record("orders", 0, offset, 0, None, b"{}", ()) for offset in offsets]
        begin = offsets[0] if begin is None else begin
        return self.handover.start(PARTITION, "id", begin, records, 0)  # type: ignore[arg-type]  # packing needs no sizes

    def report(self, claim: Claim, outcome: str = "stored") -> None:
        self.claims.report(claim, Result(claim.batch, claim.attempt, outcome))  # type: ignore[arg-type]

    def flight(self, claim: Claim, outcome: Outcome) -> Flight:
        """The batch in flight to which this result of a claim belongs."""
        flight = self.handover.flight(Result(claim.batch, claim.attempt, outcome))
        assert flight is not None
        return flight

    def _enqueue(self, claim: Claim) -> None:
        if self.claims.failure is not None:
            raise OperationalError("Redis does not respond")
        self.queue.append(claim)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(("begin", "claimed"), [(3, 3), (5, 5), (900, 5)])
def test_a_batch_begins_where_the_one_before_ended_unless_its_records_do_before(
    bench: Bench, begin: int, claimed: int
) -> None:
    assert bench.start(5, 6, begin=begin).begin == claimed


def test_a_batch_is_handed_over_once(bench: Bench) -> None:
    started = bench.start(5, 6)
    for now in (0.0, 0.5, 1.0):
        bench.handover.deliver_due(now)
    [claim] = bench.queue
    assert (claim.batch, claim.attempt, claim.first_offset, claim.last_offset) == (started.batch, 1, 5, 6)
    packed = bench.claims.take(claim)
    assert packed is not None
    assert [record.offset for record in unpack(claim, packed)] == [5, 6]


def test_a_stored_batch_leaves_the_flight(bench: Bench) -> None:
    bench.start(5)
    bench.handover.deliver_due(0)
    bench.report(bench.queue[0])
    [result] = bench.handover.results(0, 1)
    flight = bench.handover.flight(result)
    assert flight is not None
    bench.handover.drop(flight)
    assert (len(bench.handover), bench.handover.size()) == (0, 0)
    assert bench.handover.flight(result) is None


@pytest.mark.parametrize("loss", ["everything", "worker"])
def test_a_lost_batch_is_redelivered_under_a_new_claim(bench: Bench, loss: str) -> None:
    bench.start(5)
    bench.handover.deliver_due(0)
    bench.claims.take(bench.queue[0])
    if loss == "everything":
        bench.claims.lose_everything()
    else:
        bench.claims.is_worker_alive = False
    bench.handover.deliver_due(2)
    assert [claim.attempt for claim in bench.queue] == [1, 2]
    assert bench.claims.take(bench.queue[0]) is None, "the task of the first attempt finds nothing"
    assert bench.claims.take(bench.queue[1]) is not None


def test_a_batch_that_no_worker_takes_is_redelivered(bench: Bench) -> None:
    bench.start(5)
    for now in range(12):
        bench.handover.deliver_due(now)
    assert [claim.attempt for claim in bench.queue] == [1, 2]


def test_a_worker_that_is_alive_has_until_the_deadline(bench: Bench) -> None:
    bench.start(5)
    bench.handover.deliver_due(0)
    bench.claims.take(bench.queue[0])
    bench.handover.deliver_due(DEADLINE_SECONDS)
    assert len(bench.queue) == 1
    bench.handover.deliver_due(DEADLINE_SECONDS * 1.5)
    assert len(bench.queue) == 2


def test_a_result_that_waits_is_read_before_its_records_count_as_lost(bench: Bench) -> None:
    bench.start(5)
    bench.handover.deliver_due(0)
    bench.report(bench.queue[0])
    bench.handover.deliver_due(2)
    assert len(bench.queue) == 1


def test_nothing_is_handed_over_without_redis_and_nothing_is_lost(bench: Bench) -> None:
    bench.start(5)
    bench.claims.failure = redis.ConnectionError("Redis does not respond")
    bench.handover.deliver_due(0)
    assert (bench.handover.available, bench.queue, len(bench.handover)) == (False, [], 1)
    assert bench.handover.results(0, 0.1) == []
    bench.claims.failure = None
    bench.handover.deliver_due(0.2)
    assert bench.queue == [], "not before its pause is over"
    bench.handover.deliver_due(1)
    assert (bench.handover.available, [claim.attempt for claim in bench.queue]) == (True, [1])


def test_a_failure_counts_for_its_own_attempt_and_a_success_for_any(bench: Bench) -> None:
    bench.start(5)
    bench.handover.deliver_due(0)
    bench.claims.lose_everything()
    bench.handover.deliver_due(2)
    first = bench.queue[0]
    assert bench.handover.flight(Result(first.batch, 1, "failed")) is None
    assert bench.handover.flight(Result(first.batch, 1, "stored")) is not None
    assert bench.handover.flight(Result(first.batch, 2, "failed")) is not None


def test_a_failed_batch_waits_and_says_why(bench: Bench) -> None:
    bench.start(5)
    bench.handover.deliver_due(0)
    flight = bench.flight(bench.queue[0], "failed")
    bench.handover.retry(flight, "PostgreSQL does not respond", 1)
    assert bench.handover.failure() == "PostgreSQL does not respond"
    assert flight.due > 1
    bench.handover.deliver_due(flight.due)
    assert [claim.attempt for claim in bench.queue] == [1, 2]


def test_the_halves_of_a_batch_keep_their_order(bench: Bench) -> None:
    bench.start(5, 6, 7, 8)
    bench.handover.deliver_due(0)
    flight = bench.flight(bench.queue[0], "killed")
    first, second = bench.handover.split(flight, 1, in_order=True)
    assert [(part.first_offset, part.last_offset) for part in (first, second)] == [(5, 6), (7, 8)]
    bench.handover.deliver_due(1)
    assert [claim.batch for claim in bench.queue[1:]] == [first.batch]
    bench.handover.drop(bench.flight(bench.queue[1], "stored"))
    bench.handover.deliver_due(1)
    assert [claim.batch for claim in bench.queue[1:]] == [first.batch, second.batch]


def test_the_killer_is_sent_to_be_dead_lettered(bench: Bench) -> None:
    bench.start(5)
    bench.handover.deliver_due(0)
    flight = bench.flight(bench.queue[0], "killed")
    bench.handover.dead_letter(flight, "its worker process ended", 1)
    bench.handover.deliver_due(flight.due)
    assert bench.queue[-1].dead_letter_reason == "its worker process ended"
