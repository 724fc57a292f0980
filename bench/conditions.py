"""`make bench-conditions`: the storing rate while a snapshot is held, and with PostgreSQL some milliseconds away.

The conditions take turns in each round, on databases that grow, and the median of a condition counts. The snapshot
is held from the first message on, so that nothing that was deleted since can be removed.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

from bench import servers
from bench.drain import drained, stored
from bench.messages import produce
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


def main() -> None:
    """Two databases, because the snapshot of one would also keep what was deleted in the other conditions."""
    parser = argparse.ArgumentParser(prog="bench.conditions", description=__doc__)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with servers.started() as stack:
        plain, held = World(stack), World(stack)
        rates: dict[str, list[float]] = {}
        try:
            for world in (plain, held):
                world.init()
            with _snapshot(held):
                for number in range(options.rounds):
                    for condition in _CONDITIONS:
                        rate = _drain(held if condition.snapshot else plain, condition, options.messages, number)
                        rates.setdefault(condition.name, []).append(rate)
                        print(f"  {condition.name}: {rate:,.0f} messages/s", flush=True)
        finally:
            plain.close()
            held.close()
    usual = statistics.median(rates[_CONDITIONS[0].name])
    for condition in _CONDITIONS:
        median = statistics.median(rates[condition.name])
        print(f"{median:>8,.0f} messages/s {median / usual:>5.2f}  {condition.name}, {condition.workers} workers")


def _drain(world: World, condition: Condition, count: int, seed: int) -> float:
    total = stored(world) + count
    produce(world.variables["KAFKA_BROKERS"], world.topic, count, seed)
    with (
        _reached(world.variables["DATABASE_URL"], condition.milliseconds) as url,
        drained(world, total, workers=str(condition.workers), database_url=url) as seconds,
    ):
        return count / seconds


@contextmanager
def _reached(url: str, milliseconds: float) -> Iterator[str]:
    """The address of the same database at that distance."""
    if not milliseconds:
        yield url
        return
    port = urlsplit(url).port
    command = [sys.executable, "-m", "bench.slow_link", str(port), str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=servers.ROOT) as link:
        assert link.stdout is not None
        yield url.replace(f":{port}/", f":{int(link.stdout.readline())}/")
        link.terminate()


@contextmanager
def _snapshot(world: World) -> Iterator[None]:
    with world.connect() as session, session.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM message")
        yield


if __name__ == "__main__":
    main()
