"""What bridge and workers rely on: the claim store in Redis, and the one in memory that unit tests use."""

import threading
import uuid
from dataclasses import dataclass, replace

import pytest

from bootstrap.localstack.stack import Stack
from tasks.claim_check import Claim, ClaimStore, Result
from tasks.claim_store import RedisClaimStore
from tasks.seal import Seal
from tests.fakes import MemoryClaimStore


@dataclass
class Stores:
    """A store of a worker that sends heartbeats, and one of a worker that does not."""

    alive: ClaimStore
    dead: ClaimStore


_SEAL = Seal("of this test")


@pytest.fixture(params=["memory", "redis"])
def stores(request: pytest.FixtureRequest, stack: Stack) -> Stores:
    if request.param == "memory":
        dead = MemoryClaimStore()
        dead.is_worker_alive = False
        return Stores(MemoryClaimStore(), dead)
    url = stack.variables["REDIS_URL"]
    alive = RedisClaimStore(url, _SEAL, worker=uuid.uuid4().hex)
    alive.send_heartbeat()
    return Stores(alive, RedisClaimStore(url, _SEAL, worker=uuid.uuid4().hex))


@pytest.fixture
def store(stores: Stores) -> ClaimStore:
    return stores.alive


def a_claim() -> Claim:
    return Claim(uuid.uuid4().hex, 1, "orders", 3, 0, 9, 10, f"reply-{uuid.uuid4()}", "id", 0)


def test_a_worker_takes_what_the_bridge_put(store: ClaimStore) -> None:
    claim = a_claim()
    assert store.status([claim]) == ["lost"]
    store.put(claim, b"records")
    assert store.status([claim]) == ["waiting"]
    assert store.take(claim) == b"records"
    assert store.status([claim]) == ["taken"]


def test_the_batches_of_a_worker_without_heartbeat_are_lost(stores: Stores) -> None:
    claim = a_claim()
    stores.dead.put(claim, b"records")
    stores.dead.take(claim)
    assert stores.dead.status([claim]) == ["lost"]


def test_a_stale_claim_finds_no_records_and_another_attempt_does(store: ClaimStore) -> None:
    first = a_claim()
    second = replace(first, attempt=2)
    store.put(first, b"records")
    store.discard(first)
    store.put(second, b"records")
    assert store.take(first) is None
    assert store.status([first, second]) == ["lost", "waiting"]
    assert store.take(second) == b"records"


def test_a_batch_is_being_decoded_until_its_worker_says_otherwise(store: ClaimStore) -> None:
    claim = a_claim()
    assert not store.is_decoding(claim)
    store.put(claim, b"records")
    store.take(claim)
    assert store.is_decoding(claim)
    store.mark_decoded(claim)
    assert not store.is_decoding(claim)


def test_results_come_once_and_in_order_and_take_the_records_away(store: ClaimStore) -> None:
    claims = [replace(a_claim(), reply_to="reply") for _ in range(3)]
    claims = [replace(claim, reply_to=f"{claims[0].batch}-reply") for claim in claims]
    results = [Result(claim.batch, 1, "stored", stored=number) for number, claim in enumerate(claims)]
    for claim, result in zip(claims, results, strict=True):
        store.put(claim, b"records")
        store.report(claim, result)
    assert store.length(claims[0].reply_to) == 3
    assert store.status(claims) == ["lost"] * 3
    assert store.results(claims[0].reply_to, 1) == results
    assert store.results(claims[0].reply_to, 0) == []
    assert store.results(claims[0].reply_to, 0.05) == []


def test_a_result_wakes_up_the_bridge_that_waits(store: ClaimStore) -> None:
    claim = a_claim()
    result = Result(claim.batch, 1, "failed", reason="PostgreSQL does not respond")
    thread = threading.Timer(0.1, store.report, (claim, result))
    thread.start()
    assert store.results(claim.reply_to, 30) == [result]
    thread.join()
