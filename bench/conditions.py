"""`make bench-conditions`: the storing rate while a snapshot is held, and with PostgreSQL some milliseconds away.

The conditions take turns in each round, on databases that grow, and the median of a condition counts. The snapshot
is held from the first message on, so that nothing that was deleted since can be removed. With `--minutes`, only the
usual condition and the snapshot take turns for that long, and the last rounds count.

The program that delays round trips needs its part of the cores, which PostgreSQL's own host would not: a rate is also
printed without it, as what remained of the cores would have stored in the same time.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from bench import servers
from bench.drain import drained, stored
from bench.messages import produce
from tasks.config.cpu import cores
from tests.world import World


class Condition(NamedTuple):
    """What is different from the usual benchmark."""

    name: str
    workers: int
    milliseconds: float  # of a round trip to PostgreSQL
    snapshot: bool


_CONDITIONS = (
    Condition("PostgreSQL on this host", 2, 0, False),
    Condition("a round trip of 2.5 ms", 4, 2.5, False),
    Condition("a round trip of 12 ms", 8, 12, False),
    Condition("a snapshot that was held all the time", 2, 0, True),
)


class Rate(NamedTuple):
    """Messages stored a second, and how many it would be if nothing delayed round trips on the same cores."""

    seen: float
    without_link: float


def main() -> None:
    """Two databases, because the snapshot of one would also keep what was deleted in the other conditions."""
    parser = argparse.ArgumentParser(prog="bench.conditions", description=__doc__)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3, help="how many count")
    parser.add_argument("--minutes", type=float, default=0, help="hold the snapshot that long")
    options = parser.parse_args()
    conditions = [one for one in _CONDITIONS if not (options.minutes and one.milliseconds)]
    with servers.started() as stack:
        plain, held = World(stack), World(stack)
        try:
            for world in (plain, held):
                world.init()
            with _snapshot(held):
                rounds = list(_rounds(plain, held, conditions, options))[-options.rounds :]
        finally:
            plain.close()
            held.close()
    medians = [Rate(*map(statistics.median, zip(*rates, strict=True))) for rates in zip(*rounds, strict=True)]
    for condition, rate in zip(conditions, medians, strict=True):
        ratios = f"{rate.seen / medians[0].seen:>5.2f} {rate.without_link / medians[0].seen:>5.2f}"
        print(f"{rate.seen:>8,.0f} messages/s {ratios}  {condition.name}, {condition.workers} workers")


def _rounds(
    plain: World, held: World, conditions: list[Condition], options: argparse.Namespace
) -> Iterator[list[Rate]]:
    began, number = time.monotonic(), 0
    while number < options.rounds or time.monotonic() - began < options.minutes * 60:
        rates = []
        for condition in conditions:
            rate = _drain(held if condition.snapshot else plain, condition, options.messages, number)
            rates.append(rate)
            minutes = (time.monotonic() - began) / 60
            print(f"{minutes:>5.1f} min  {rate.seen:>8,.0f} messages/s  {condition.name}", flush=True)
        yield rates
        number += 1


def _drain(world: World, condition: Condition, count: int, seed: int) -> Rate:
    total = stored(world) + count
    produce(world.variables["KAFKA_BROKERS"], world.topic, count, seed)
    with (
        _reached(world.variables["DATABASE_URL"], condition.milliseconds) as (url, link_cpu),
        drained(world, total, workers=str(condition.workers), database_url=url) as seconds,
    ):
        there = cores() * seconds
        return Rate(count / seconds, count / seconds * there / (there - link_cpu()))


@contextmanager
def _reached(url: str, milliseconds: float) -> Iterator[tuple[str, Callable[[], float]]]:
    """The address of the same database at that distance, and the CPU seconds that the distance has cost so far."""
    if not milliseconds:
        yield url, lambda: 0.0
        return
    port = urlsplit(url).port
    command = [sys.executable, "-m", "bench.slow_link", str(port), str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=servers.ROOT) as link:
        assert link.stdout is not None
        process = psutil.Process(link.pid)
        address = url.replace(f":{port}/", f":{int(link.stdout.readline())}/")
        yield address, lambda: sum(process.cpu_times()[:2])
        link.terminate()


@contextmanager
def _snapshot(world: World) -> Iterator[None]:
    with world.connect() as session, session.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM message")
        yield


if __name__ == "__main__":
    main()
