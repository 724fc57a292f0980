"""`make bench-tasks`: users' tasks, from Kafka until all have run, against a Celery task a message on Redis.

Each contestant drains messages that were produced before: seconds are from the assignment of the partitions until the
last obligation has ended. Contestants take turns, and the median of each counts. Celery alone gets its messages from
Redis, and nothing of it is durable.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import redis

from bench import servers
from bench.drain import stored
from bench.messages import produce
from bootstrap.localstack.stack import Stack
from tests.world import World

_LONGEST_SECONDS = 300
_PEER = "Celery alone, a task that does nothing"
_LEFT = "SELECT (SELECT count(*) FROM chunk) + (SELECT count(*) FROM run)"


class Contestant(NamedTuple):
    """A module with a task, and the number of messages."""

    name: str
    module: str
    messages: int


class Rates(NamedTuple):
    """Messages a second: stored, and run."""

    stored: float
    run: float


def main() -> None:
    """Run all contestants and print one table."""
    parser = argparse.ArgumentParser(prog="bench.tasks", description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="contestants whose name contains this")
    options = parser.parse_args()
    contestants = (
        Contestant("stored only", "", options.messages),
        Contestant("a task that does nothing", "bench.own.noop", options.messages),
        Contestant("transaction, an INSERT through a cursor", "bench.own.insert", options.messages // 4),
        Contestant("transaction, Peewee's create", "bench.own.create", options.messages // 10),
        Contestant("5 ms of CPU", "bench.own.busy", options.messages // 100),
    )
    rates: dict[str, list[Rates]] = {}
    with servers.started() as stack:
        for _ in range(options.rounds):
            for contestant in (one for one in contestants if options.only in one.name):
                rates.setdefault(contestant.name, []).append(_drain(stack, contestant))
            if options.only in _PEER:
                rates.setdefault(_PEER, []).append(_celery(stack, options.messages // 40))
    print("| task | messages/s stored | runs/s |\n|---|---|---|")
    for name, measured in rates.items():
        medians = Rates(*map(statistics.median, zip(*measured, strict=True)))
        print(f"| {name} | {medians.stored:,.0f} | {medians.run:,.0f} |")


def _drain(stack: Stack, contestant: Contestant) -> Rates:
    world = World(stack)
    try:
        world.variables["TASKS"] = contestant.module
        world.init()
        world.sql("CREATE TABLE effect (message text PRIMARY KEY, number bigint)")
        produce(world.variables["KAFKA_BROKERS"], world.topic, contestant.messages, 1)
        pod = world.consume(task_workers="2")
        began = min(map(servers.logged_at, pod.lines("partitions.assigned")))
        deadline, stored_at = time.monotonic() + _LONGEST_SECONDS, 0.0
        while not stored_at or world.sql(_LEFT) != [(0,)]:
            assert time.monotonic() < deadline, "it takes too long"
            if not stored_at and stored(world) == contestant.messages:
                stored_at = max(map(servers.logged_at, pod.lines("batch.stored")))
            time.sleep(0.1)
        [[ended]] = world.sql("SELECT extract(epoch FROM clock_timestamp())::float")
        return Rates(contestant.messages / (stored_at - began), contestant.messages / (ended - began))
    finally:
        world.close()


def _celery(stack: Stack, messages: int) -> Rates:
    queue = redis.Redis.from_url(stack.variables["REDIS_URL"])
    environment = {**os.environ, **stack.variables, "TASK_WORKERS": "2"}
    command = [sys.executable, "-W", "ignore", "-m", "bench.celery_alone"]
    subprocess.run([*command, str(messages)], env=environment, cwd=servers.ROOT, check=True)
    with subprocess.Popen(command, env=environment, cwd=servers.ROOT) as worker:
        began, first = 0.0, messages
        while (left := int(queue.llen("alone")) + int(queue.hlen("unacked"))) > 0:
            if left < messages and not began:
                began, first = time.monotonic(), left
            time.sleep(0.05)
        seconds = time.monotonic() - began
        worker.terminate()
    return Rates(0, first / seconds)


if __name__ == "__main__":
    main()
