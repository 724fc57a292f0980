"""A part of `make bench-tasks`: how long a lone message takes from POST to the start of the function."""

import random
import statistics
import time

import requests

from bench.own import start
from bootstrap.localstack.stack import Stack
from tests.waiting import wait_until
from tests.world import World

NAME = "lone message"
_WARM = 5  # messages that do not count


def measure(stack: Stack, count: int) -> None:
    """Print the median and the 99th percentile of so many messages, of which each waits for the one before."""
    world = World(stack)
    try:
        world.variables["TASKS"] = start.__name__
        world.init()
        world.sql("CREATE TABLE effect (message text PRIMARY KEY, number bigint)")
        world.serve()
        world.consume(task_workers="2")
        chance = random.Random(1)
        with requests.Session() as session:
            waits = sorted([_milliseconds(world, session, chance) for _ in range(_WARM + count)][_WARM:])
        median, p99 = statistics.median(waits), statistics.quantiles(waits, n=100, method="inclusive")[98]
        print("\n| from POST to the function's start | ms |\n|---|---|")
        print(f"| median | {median:.0f} |\n| 99 % | {p99:.0f} |\n| slowest | {waits[-1]:.0f} |", flush=True)
    finally:
        world.close()


def _milliseconds(world: World, session: requests.Session, chance: random.Random) -> float:
    time.sleep(chance.uniform(0.2, 0.6))  # so that it is alone, and at any time between two looks for work
    began = time.time_ns()
    response = session.post(f"{world.url}/messages", json={"type": "lone"}, timeout=30)
    assert response.status_code == 202, response.text
    started = "SELECT number FROM effect WHERE message = %s"
    rows = wait_until(lambda: world.sql(started, response.json()["id"]), "the function has started")
    return float(rows[0][0] - began) / 1e6
