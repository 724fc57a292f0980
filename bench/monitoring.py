"""`make bench-monitoring`: what it costs that Celery's own tools can see the workers, and that one watches them.

The same messages are drained with CELERY_MONITORING off, on, and on with the events of tasks, which are enabled as
Flower does it. They take turns, with batches of the usual size and with small ones. A ratio is that of a run to the
one with `off` in the same round, and the median counts. CPU is that of the pod and of Redis.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psutil
from celery import Celery

from bench import servers
from bench.drain import stored
from bench.messages import produce
from bench.usage import cpu
from bootstrap.localstack.stack import Stack
from tests.world import World

_LONGEST_SECONDS = 300
_ENABLE_SECONDS = 0.5
_CONTESTANTS = {"off": "off", "on": "on", "on, watched": "on"}  # by name: the setting


class Cost(NamedTuple):
    """Of one run."""

    rate: float  # messages a second
    cpu: float  # seconds


def main() -> None:
    """Run all rounds and print a table for each size of batches."""
    parser = argparse.ArgumentParser(prog="bench.monitoring", description=__doc__)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("| records in a batch | monitoring | messages/s | rate, ratio | CPU, ratio |\n|---|---|---|---|---|")
    with servers.started() as stack:
        for records, messages in ((2000, options.messages), (100, options.messages // 3)):
            rounds = [
                {name: _drain(stack, name, messages, records) for name in _CONTESTANTS} for _ in range(options.rounds)
            ]
            for name in _CONTESTANTS:
                rate = statistics.median(costs[name].rate for costs in rounds)
                rates = statistics.median(costs[name].rate / costs["off"].rate for costs in rounds)
                used = statistics.median(costs[name].cpu / costs["off"].cpu for costs in rounds)
                print(f"| {records} | {name} | {rate:,.0f} | {rates:.3f} | {used:.3f} |", flush=True)


def _drain(stack: Stack, name: str, messages: int, records: int) -> Cost:
    world = World(stack)
    server = psutil.Process(stack.servers["valkey"].pid)
    try:
        world.init()
        produce(world.variables["KAFKA_BROKERS"], world.topic, messages, 1)
        used = -cpu(server)
        with _events_enabled(world, name.endswith("watched")):
            pod = world.consume(batch_records=str(records), celery_monitoring=_CONTESTANTS[name])
            deadline = time.monotonic() + _LONGEST_SECONDS
            while stored(world) < messages:
                assert time.monotonic() < deadline, "it takes too long"
                time.sleep(0.25)
            used += cpu(server) + sum(cpu(process) for process in pod.family())
        at = servers.logged_at
        seconds = max(map(at, pod.lines("batch.stored"))) - min(map(at, pod.lines("partitions.assigned")))
        return Cost(messages / seconds, used)
    finally:
        world.close()


@contextmanager
def _events_enabled(world: World, watched: bool) -> Iterator[None]:
    """Enable the events of all workers, again and again, as workers that have just started have them off."""
    if not watched:
        yield
        return
    ended = threading.Event()
    app = Celery(broker=world.variables["REDIS_URL"], set_as_current=False)

    def enable() -> None:
        while not ended.wait(_ENABLE_SECONDS):
            app.control.enable_events()

    thread = threading.Thread(target=enable)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    main()
