"""`make bench-growth`: what a million messages cost as the table grows, and how long reads take then.

Each million is produced while no pod runs, and then drained by one; seconds are from the assignment of its partitions
to the last commit. PostgreSQL's CPU, WAL and indexes are those of the same time.
"""

import argparse
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import psutil

from bench import servers, usage
from bench.drain import drained
from bench.messages import produce
from bench.reads import Route, alone
from bench.report import write_growth
from bootstrap.localstack.stack import Stack
from tests.world import World

_MILLION = 1_000_000
_INDEXES = """
    SELECT sum(pg_indexes_size(oid))::bigint FROM pg_class
    WHERE relname ~ '^(message_\\d|claim$|span$|message_count$)' AND relkind = 'r'
"""


class Growth(NamedTuple):
    """What the messages up to `millions` cost, beginning with those before."""

    millions: float
    per_second: float
    cpu_seconds_per_million: float  # PostgreSQL
    wal_mb: float
    indexes_mb: float


def main() -> None:
    """Grow, then read."""
    parser = argparse.ArgumentParser(prog="bench.growth", description=__doc__)
    parser.add_argument("--millions", type=float, default=10)
    parser.add_argument("--step", type=float, default=1, help="millions that are produced and drained at once")
    parser.add_argument("--random-ids", action="store_true", help="ids that senders chose at random, in message-id")
    options = parser.parse_args()
    with servers.started() as stack:
        world = World(stack)
        try:
            world.init()
            print(f"{'millions':>8} {'messages/s':>11} {'PostgreSQL, s/M':>16} {'WAL, MB':>8} {'indexes, MB':>12}")
            steps = []
            for figures in _grow(world, stack, options):
                steps.append(figures)
                print(
                    f"{figures.millions:>8.1f} {figures.per_second:>11,.0f} {figures.cpu_seconds_per_million:>16.1f}"
                    f" {figures.wal_mb:>8.0f} {figures.indexes_mb:>12.0f}",
                    flush=True,
                )
            kind = "random ids of the senders" if options.random_ids else "ids from places"
            write_growth(kind, steps, servers.ROOT / "bench" / "results")
            _read(world)
        finally:
            world.close()


def _grow(world: World, stack: Stack, options: argparse.Namespace) -> Iterator[Growth]:
    server = psutil.Process(stack.servers["postgresql"].pid)
    count, stored = round(options.step * _MILLION), 0
    while stored < options.millions * _MILLION:
        produce(world.variables["KAFKA_BROKERS"], world.topic, count, stored, options.random_ids)
        world.sql("CHECKPOINT")
        cpu, wal = usage.server_cpu(server), _wal(world)
        with drained(world, stored + count, workers="2") as seconds:
            used, written = usage.server_cpu(server) - cpu, _wal(world) - wal
        stored += count
        indexes = world.sql(_INDEXES)[0][0]
        millions = count / _MILLION
        yield Growth(stored / _MILLION, count / seconds, used / millions, written / 1e6 / millions, indexes / 1e6)


def _wal(world: World) -> float:
    return float(world.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")[0][0])


def _read(world: World) -> None:
    world.serve()
    month = (datetime.now(UTC) - timedelta(days=30)).isoformat().replace("+00:00", "Z")
    message_id, key = world.sql("SELECT id, key FROM message ORDER BY stored_at LIMIT 1")[0]
    routes: Sequence[tuple[str, dict[str, str]]] = (
        ("/messages", {}),
        ("/messages", {"type": "order.paid"}),
        ("/messages", {"type": "nobody's"}),
        ("/messages", {"key": str(key)}),
        ("/messages", {"contains": '{"number": 7}'}),
        ("/messages", {"from": month}),
        (f"/messages/{message_id}", {}),
        ("/stats", {}),
        ("/stats", {"from": month, "bucket": "day"}),
        ("/topics", {}),
        ("/dead-letters", {}),
    )
    alone(world, [Route(f"{path} {query or ''}".replace(str(message_id), "ID"), path, query) for path, query in routes])


if __name__ == "__main__":
    main()
