"""A part of `make bench-tasks`: how many cores five tasks that do nothing take, beyond what storing takes."""

import time

import psutil

from bench import latency, usage
from bench.own import five
from bootstrap.localstack.stack import Stack
from tests.waiting import wait_until
from tests.world import World

NAME = "five tasks"
_RATES = (10, 300, 3_000)
_WARM_SECONDS = 3.0


def measure(stack: Stack, seconds: float) -> None:
    """Print the table, after a load of so many seconds at each rate."""
    print("\n| messages/s | cores for storing | and for five tasks |\n|---|---|---|")
    for rate in _RATES:
        storing, both = (_cores(stack, rate, seconds, tasks) for tasks in ("", five.__name__))
        print(f"| {rate:,} | {storing:.2f} | {both - storing:.2f} |", flush=True)


def _cores(stack: Stack, rate: int, seconds: float, tasks: str) -> float:
    """The CPU of the pod and of all servers, in cores, until all have run."""
    world = World(stack)
    try:
        world.variables["TASKS"] = tasks
        world.init()
        pod = world.consume(task_workers="2")
        count = latency.send(world, rate, _WARM_SECONDS)
        _ended(world, count)
        servers = [psutil.Process(server.pid) for server in stack.servers.values()]
        began, before = time.monotonic(), latency.cpu(pod) + sum(map(usage.server_cpu, servers))
        count += latency.send(world, rate, seconds)
        _ended(world, count)
        used = latency.cpu(pod) + sum(map(usage.server_cpu, servers)) - before
        return used / (time.monotonic() - began)
    finally:
        world.close()


def _ended(world: World, count: int) -> None:
    world.wait_for(count)
    wait_until(lambda: world.obligations() == 0, "all have run")
