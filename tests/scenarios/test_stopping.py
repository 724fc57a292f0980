"""SIGTERM under load: the pod ends by itself in time, and nothing is handed over twice."""

import time

import psutil

from tests.clients import events
from tests.waiting import wait_until
from tests.world import World


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


def test_every_long_lived_process_says_that_it_stopped(ready: World) -> None:
    server, pod = ready.serve(), ready.consume()
    assert ready.post(type="last").status_code == 202
    assert (server.stop(), pod.stop()) == (0, 0)
    assert [line["process"] for line in server.lines("process.stopped")] == ["serve"]
    assert {line["process"] for line in pod.lines("process.stopped")} == {"bridge", "worker", "listener"}
