"""A program without progress and without a known cause reports it, exits, and is restarted; with a cause it waits."""

import signal
import time
from pathlib import Path

from bridge.watchdog import FROZEN_SECONDS
from tests.clients import events
from tests.programs import signalled
from tests.user_tasks import EFFECT
from tests.waiting import wait_until
from tests.world import World

_LIMIT = 30

# Loaded by Python itself: kafka-python asks for no more records, as some of its bugs had it, while a file is there.
_FAULT = """
import os
from kafka.consumer.fetcher import Fetcher
real = Fetcher.send_fetches
Fetcher.send_fetches = lambda self: [] if os.path.exists({!r}) else real(self)
"""

# The same for kombu: the workers' parent acknowledges no task, and so is never free for another.
_DEAF = """
import os
from kombu.transport.redis import QoS
real = QoS.ack
QoS.ack = lambda self, tag: None if os.path.exists({!r}) else real(self, tag)
"""

# As Kafka's client does if it deadlocks in a call: no other thread of Python runs, and so no watchdog.
_DEADLOCK = """
import ctypes, os, sys, threading, time
def wait():
    while not os.path.exists({0!r}):
        time.sleep(0.1)
    if "bridge" in sys.argv:
        os.remove({0!r})
        ctypes.PyDLL(None).pause()
threading.Thread(target=wait, daemon=True).start()
"""

# As if the thread of Kafka's client had stopped: it reports nothing.
_SILENCE = """
import confluent_kafka, os
real = confluent_kafka.Consumer
def make(options, **more):
    return real({{**options, "statistics.interval.ms": 0}} if os.path.exists({!r}) else options, **more)
confluent_kafka.Consumer = make
"""


def test_a_stuck_bridge_is_started_anew(ready: World) -> None:
    pod = ready.consume(watchdog_seconds=str(_LIMIT))
    worker = pod.child("-m tasks")
    frozen = [worker, *worker.children()]
    for process in frozen:
        signalled(process, signal.SIGSTOP)
    made = events(100)
    ready.produce(list(made.values()))
    stuck = wait_until(lambda: pod.lines("bridge.stuck"), "the bridge gives up", _LIMIT + 30)
    assert stuck[0]["in_flight"] > 0
    for process in frozen:
        signalled(process, signal.SIGCONT)
    ready.wait_for(100)
    ready.holds_exactly(made)


def test_a_bridge_to_which_nothing_is_delivered_is_started_anew(ready: World, tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    (tmp_path / "sitecustomize.py").write_text(_FAULT.format(str(deaf)))
    pod = ready.consume(kafka_client="kafka-python", watchdog_seconds=str(_LIMIT), pythonpath=str(tmp_path))
    first, second = events(100), events(100)
    ready.produce(list(first.values()))
    ready.wait_for(100)
    deaf.touch()
    values = list(second.values())
    for start in range(0, 100, 20):  # in parts: a request that waits in the broker still brings the first
        ready.produce(values[start : start + 20])
    stuck = wait_until(lambda: pod.lines("bridge.stuck"), "the bridge gives up", _LIMIT + 30)
    assert (stuck[0]["in_flight"], stuck[0]["undelivered"]) == (0, True)
    deaf.unlink()
    ready.wait_for(200)
    ready.holds_exactly([*first, *second])


def test_a_bridge_without_kafka_says_so_and_is_not_stuck(ready: World) -> None:
    pod = ready.consume(watchdog_seconds=str(_LIMIT))
    made = events(200)
    values = list(made.values())
    ready.produce(values[:100])
    ready.wait_for(100)
    server = ready.stack.servers["kafka"]
    server.kill()
    away = time.monotonic()
    wait_until(lambda: pod.lines("service.unavailable"), "the bridge says that Kafka is away")
    wait_until(lambda: time.monotonic() - away > _LIMIT + 10, "the outage is longer than the watchdog's limit", 60)
    server.restart()
    ready.produce(values[100:])
    ready.wait_for(200)
    ready.holds_exactly(made)
    wait_until(lambda: pod.lines("service.available"), "and that it is back")
    assert [line["service"] for line in pod.lines("service.unavailable")] == ["kafka"]
    assert not pod.lines("bridge.stuck")


def test_workers_that_take_no_more_tasks_are_started_anew(ready: World, tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    deaf.touch()
    (tmp_path / "sitecustomize.py").write_text(_DEAF.format(str(deaf)))
    pod = ready.consume(watchdog_seconds=str(_LIMIT), batch_records="10", pythonpath=str(tmp_path))
    made = events(200)
    ready.produce(list(made.values()))
    stuck = wait_until(lambda: pod.lines("worker.stuck"), "the workers' parent gives up", _LIMIT + 30)
    assert stuck[0]["waiting"] > 0
    deaf.unlink()
    ready.wait_for(200)
    ready.holds_exactly(made)
    assert not pod.lines("bridge.stuck")


def test_a_parent_of_users_tasks_that_takes_none_ends(world: World, tmp_path: Path) -> None:
    world.variables["TASKS"] = "tests.user_tasks"
    world.init()
    world.sql(EFFECT)
    world.consume("--only", "bridge")
    world.start("consume", "--only", "worker")
    deaf = tmp_path / "deaf"
    deaf.touch()
    (tmp_path / "sitecustomize.py").write_text(_DEAF.format(str(deaf)))
    tasks = world.start("consume", "--only", "tasks", watchdog_seconds=str(_LIMIT), pythonpath=str(tmp_path))
    world.produce(list(events(100).values()))
    assert tasks.process.wait(_LIMIT + 60) == 1
    assert tasks.lines("worker.stuck")
    world.start("consume", "--only", "tasks")
    done = "SELECT count(*) FROM effect WHERE task = 'exact'"
    wait_until(lambda: world.sql(done) == [(100,)], "another parent runs them")


def test_a_bridge_whose_client_deadlocks_is_started_anew(ready: World, tmp_path: Path) -> None:
    deadlock = tmp_path / "deadlock"
    (tmp_path / "sitecustomize.py").write_text(_DEADLOCK.format(str(deadlock)))
    pod = ready.consume(pythonpath=str(tmp_path))
    first, second = events(100), events(100)
    ready.produce(list(first.values()))
    ready.wait_for(100)
    bridge = pod.child("--only bridge").pid
    deadlock.touch()
    wait_until(lambda: not deadlock.exists(), "the bridge is deadlocked")
    ready.produce(list(second.values()))
    ready.wait_for(200, FROZEN_SECONDS + 60)
    ready.holds_exactly([*first, *second])
    assert pod.child("--only bridge").pid != bridge
    assert pod.stop() == 0


def test_a_bridge_whose_client_is_silent_is_started_anew(ready: World, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.touch()
    (tmp_path / "sitecustomize.py").write_text(_SILENCE.format(str(silent)))
    pod = ready.consume(pythonpath=str(tmp_path))
    [stuck] = wait_until(lambda: pod.lines("bridge.stuck"), "the bridge gives up", 60)
    assert stuck["reason"] == "Kafka's client gives no sign of life"
    silent.unlink()
    made = events(100)
    ready.produce(list(made.values()))
    ready.wait_for(100)
    ready.holds_exactly(made)
    assert pod.stop() == 0
