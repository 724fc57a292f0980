"""`make bench-tasks`: users' tasks against other ways to run a function for each message.

Three tables. The first has runs a second, from the first run that ended to the last, and the CPU of all processes and
servers in that time; each way has two processes for the function, and its messages wait before it is started. The
others have what five tasks cost at several rates, and how long a lone message takes from POST to the function's start.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from bench import five_tasks, lone_message, servers, usage
from bench.contestants import Backend, CeleryAlone, Contestant, Naive, Procrastinate, Query, environment
from bootstrap.localstack.stack import Stack
from tests.world import World

_LONGEST_SECONDS = 120
_FUNCTIONS = {
    "none": "",
    "noop": "bench.own.noop",
    "insert": "bench.own.insert",
    "create": "bench.own.create",
    "busy": "bench.own.busy",
    "wait": "bench.own.wait",
}
_DESCRIPTIONS = {
    "none": "none, messages are stored only",
    "noop": "does nothing",
    "insert": "one INSERT in a transaction",
    "create": "the same by Peewee's create",
    "busy": "5 ms of CPU",
    "wait": "50 ms of waiting",
}
# As many runs as take some seconds.
_CONTESTANTS = (
    Backend("this backend", none=200_000, noop=200_000, insert=50_000, create=20_000, busy=2_000, wait=300),
    Naive("naive bridge, a Celery task a message", noop=4_000, insert=4_000, busy=1_500, wait=300),
    CeleryAlone("Celery on Redis, acks_late", noop=4_000, insert=4_000, busy=1_500, wait=300),
    Procrastinate("procrastinate", noop=1_500, insert=1_500, busy=1_000, wait=300),
)


class Figures(NamedTuple):
    """Runs a second, and CPU seconds of a million of them."""

    per_second: float
    cpu_seconds_per_million: float


def main() -> None:
    """Run all contestants in turns, then the two other measurements, and print their tables."""
    parser = argparse.ArgumentParser(prog="bench.tasks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="number of runs of each contestant; the median counts")
    parser.add_argument("--scale", type=float, default=1, help="factor of all numbers of messages")
    parser.add_argument("--only", default="", help="contestants, or tables, whose name contains this")
    options = parser.parse_args()
    with servers.started() as stack:
        _compare(stack, options)
        if options.only in five_tasks.NAME:
            five_tasks.measure(stack, seconds=10 * options.scale)
        if options.only in lone_message.NAME:
            lone_message.measure(stack, count=round(100 * options.scale))


def _compare(stack: Stack, options: argparse.Namespace) -> None:
    measured: dict[tuple[str, str], list[Figures]] = {}
    for _ in range(options.rounds):
        for function in _FUNCTIONS:
            for contestant in (one for one in _CONTESTANTS if options.only in one.name and function in one.runs):
                count = max(50, round(contestant.runs[function] * options.scale))
                figures = _measure(stack, contestant, function, count)
                measured.setdefault((function, contestant.name), []).append(figures)
                print(f"  {function}, {contestant.name}: {figures.per_second:,.0f} runs/s", flush=True)
    if measured:
        print("\n| function | way | runs/s | CPU s per million runs |\n|---|---|---|---|")
    for (function, name), figures_of_one in measured.items():
        median = Figures(*map(statistics.median, zip(*figures_of_one, strict=True)))
        rates = f"{median.per_second:,.0f} | {median.cpu_seconds_per_million:,.0f}"
        print(f"| {_DESCRIPTIONS[function]} | {name} | {rates} |", flush=True)


def _measure(stack: Stack, contestant: Contestant, function: str, count: int) -> Figures:
    world = World(stack)
    try:
        world.variables["TASKS"] = _FUNCTIONS[function]
        world.init()
        world.sql("CREATE TABLE effect (message text PRIMARY KEY, number bigint)")
        contestant.queue(world, count)
        with _query(world) as query, _running(world, contestant, count) as processes:
            deadline = time.monotonic() + _LONGEST_SECONDS
            began, first, before, seen = 0.0, count, 0.0, dict[int, float]()
            while (left := contestant.left(world, query, count)) > 0:
                if not began and left < count:
                    began, first, before = time.monotonic(), left, _cpu(stack, processes, seen)
                assert time.monotonic() < deadline, f"{contestant.name}: {left} of {count} are left"
                time.sleep(0.05)
            assert began, f"{contestant.name}: too few messages to measure"
            seconds, used = time.monotonic() - began, _cpu(stack, processes, seen) - before
        return Figures(first / seconds, used * 1e6 / first)
    finally:
        world.close()


@contextmanager
def _query(world: World) -> Iterator[Query]:
    with world.connect() as session:
        session.autocommit = True

        def query(statement: str) -> int:
            with session.cursor() as cursor:
                cursor.execute(statement)
                return int(cursor.fetchone()[0])

        yield query


@contextmanager
def _running(world: World, contestant: Contestant, count: int) -> Iterator[list[psutil.Popen]]:
    with tempfile.NamedTemporaryFile(prefix="contestant-", suffix=".log") as log:
        processes = [
            psutil.Popen(command, env=environment(world), cwd=servers.ROOT, stdout=log, stderr=log)
            for command in contestant.commands(count)
        ]
        try:
            yield processes
        except AssertionError:
            print(Path(log.name).read_text(errors="replace")[-5_000:], file=sys.stderr)
            raise
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)


def _cpu(stack: Stack, processes: list[psutil.Popen], seen: dict[int, float]) -> float:
    """The CPU seconds so far of the servers and of all processes; `seen` keeps those of processes that have ended."""
    for process in processes:
        for one in _family(process):
            seen[one.pid] = max(usage.cpu(one), seen.get(one.pid, 0.0))
    return sum(seen.values()) + sum(usage.server_cpu(psutil.Process(one.pid)) for one in stack.servers.values())


def _family(process: psutil.Popen) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)] if process.is_running() else []


if __name__ == "__main__":
    main()
