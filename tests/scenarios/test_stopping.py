"""SIGTERM in the middle of the load: the pod ends by itself in time, and hands nothing over twice."""

import time

import psutil

from tests.waiting import wait_until
from tests.world import World, events


def test_a_stopped_pod_finishes_what_it_holds(ready: World) -> None:
    made = events(20_000)
    ready.produce(list(made.values()))
    first = ready.consume(batch_records="200")
    wait_until(lambda: ready.count() > 1000, "the load is under way")
    began = time.monotonic()
    assert first.stop() == 0
    assert time.monotonic() - began < 25
    assert ready.count() < 20_000
    second = ready.consume()
    ready.wait_for(20_000)
    ready.holds_exactly(made)
    assert sum(line["redelivered"] for line in first.lines("batch.stored") + second.lines("batch.stored")) == 0


def test_a_broker_that_goes_away_before_the_last_commit_holds_nobody_up(ready: World) -> None:
    made = events(20_000)
    ready.produce(list(made.values()))
    ready.start("consume", "--only", "worker")
    bridge = ready.consume("--only", "bridge", batch_records="200")
    wait_until(lambda: ready.count() > 1000, "the load is under way")
    broker = psutil.Process(ready.stack.servers["kafka"].pid)
    broker.suspend()
    try:
        assert bridge.stop(25) == 0
    finally:
        broker.resume()
    ready.consume("--only", "bridge")
    ready.wait_for(20_000)
    ready.holds_exactly(made)
    ready.all_committed()
