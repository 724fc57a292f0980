"""`make bench-reads`: how long each read takes with 20 million messages in 100 leaves, alone and with 80 readers.

The messages are written by SQL, 250 bytes of JSON each, in leaves of a day. Latencies are those of 50 requests after
one that is not counted, with the default settings of PostgreSQL; then 80 clients ask for everything at once.
"""

import argparse
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import psycopg2
import requests
from tqdm import tqdm

from bench import servers
from tests.world import World

_REQUESTS, _READERS, _READER_SECONDS = 50, 80, 20
_FILLERS = 2
_LEAF = "CREATE TABLE IF NOT EXISTS message_{name} PARTITION OF message FOR VALUES FROM ('{begin}') TO ('{end}')"
_FILL = """
    INSERT INTO message (id, topic, "partition", "offset", produced_at, stored_at, type, key, payload)
    SELECT overlay(md5(%(leaf)s || '/' || n) PLACING '8' FROM 13 FOR 1)::uuid, 'topic', n %% 6, %(leaf)s * %(rows)s + n,
        at, at, CASE WHEN n %% 1000 = 0 THEN 'rare-' || n / 1000 %% 20 ELSE 'type-' || n %% 5 END,
        (n * 7919 %% 50000)::text,
        jsonb_build_object('id', gen_random_uuid(), 'type', 'type-' || n %% 5, 'customer', 'customer-' || n %% 50000,
            'number', n, 'note', repeat('x', 40), 'items', jsonb_build_array(
                jsonb_build_object('sku', 'sku-' || n, 'quantity', 1), jsonb_build_object('sku', 'sku', 'quantity', 2)))
    FROM (SELECT n, %(begin)s::timestamptz + n * (interval '1 day' / %(rows)s) AS at
        FROM generate_series(0, %(rows)s - 1) n) AS one
"""
_COUNT = """
    INSERT INTO message_count (precision, at, topic, type, other, messages)
    SELECT 'hour', date_trunc('hour', stored_at), topic, type, false, count(*) FROM message
    WHERE stored_at >= %(begin)s AND stored_at < %(begin)s::timestamptz + interval '1 day' GROUP BY 2, 3, 4
"""


class Route(NamedTuple):
    """A request, and what it stands for."""

    name: str
    path: str
    query: Mapping[str, str]


def main() -> None:
    """Fill, read alone, read together."""
    parser = argparse.ArgumentParser(prog="bench.reads", description=__doc__)
    parser.add_argument("--leaves", type=int, default=100)
    parser.add_argument("--rows", type=int, default=200_000, help="messages in a leaf")
    options = parser.parse_args()
    with servers.started() as stack:
        world = World(stack)
        try:
            world.init()
            _fill(world, options.leaves, options.rows)
            world.serve()
            routes = _routes(world, options.leaves)
            alone(world, routes, (200, 404))
            _together(world, routes)
        finally:
            world.close()


def alone(world: World, routes: Sequence[Route], expected: Sequence[int] = (200,)) -> None:
    """Print the latency of each route: 50 requests, after one that is not counted."""
    print(f"{'median ms':>10} {'p99 ms':>8}  alone")
    with requests.Session() as session:
        for route in routes:
            waits = [_request(session, world, route, expected)[1] for _ in range(_REQUESTS + 1)]
            _print(route.name, waits[1:])


def _fill(world: World, leaves: int, rows: int) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today - timedelta(days=number) for number in range(leaves, 0, -1)]
    for day in days:
        end = day + timedelta(days=1)
        world.sql(_LEAF.format(name=f"{day:%Y%m%d}_{end:%Y%m%d}", begin=day.isoformat(), end=end.isoformat()))

    def fill(number: int) -> None:
        connection = psycopg2.connect(world.variables["DATABASE_URL"])
        with connection, connection.cursor() as cursor:
            values = {"leaf": number, "begin": days[number], "rows": rows}
            cursor.execute(_FILL, values)
            cursor.execute(_COUNT, values)
        connection.close()

    with ThreadPoolExecutor(_FILLERS) as pool:
        list(tqdm(pool.map(fill, range(leaves)), total=leaves, desc="filling", unit="leaf", mininterval=5))
    world.sql("ANALYZE message")  # which autovacuum does within minutes of a leaf's last message
    world.sql("CHECKPOINT")


def _routes(world: World, leaves: int) -> Sequence[Route]:
    def ago(days: float) -> str:
        return (datetime.now(UTC) - timedelta(days=days)).isoformat().replace("+00:00", "Z")

    oldest = world.sql("SELECT id FROM message ORDER BY stored_at LIMIT 1")[0][0]
    newest = world.sql("SELECT id FROM message ORDER BY stored_at DESC LIMIT 1")[0][0]
    middle = {"from": ago(leaves / 2), "to": ago(leaves / 2 - 1)}
    return [
        Route("/messages", "/messages", {}),
        Route("/messages, 1,000 of them", "/messages", {"limit": "1000"}),
        Route("of a frequent type", "/messages", {"type": "type-3"}),
        Route("of a rare type", "/messages", {"type": "rare-7"}),
        Route("of a type that nobody has", "/messages", {"type": "nobody's"}),
        Route("of one of 50,000 keys", "/messages", {"key": "4711"}),
        Route("of a key that nobody has", "/messages", {"key": "nobody's"}),
        Route("of a key and a frequent type", "/messages", {"key": "4711", "type": "type-1"}),
        Route("of a partition", "/messages", {"topic": "topic", "partition": "3"}),
        Route("of another topic", "/messages", {"topic": "other"}),
        Route("that contain JSON which nobody sent", "/messages", {"contains": '{"number": -7}'}),
        Route("of a day in the middle", "/messages", middle),
        Route("of a day in the middle and a rare type", "/messages", {**middle, "type": "rare-7"}),
        Route("the newest by its id", f"/messages/{newest}", {}),
        Route("the oldest by its id", f"/messages/{oldest}", {}),
        Route("an id that is not stored", "/messages/00000000-0000-8000-8000-000000000000", {}),
        Route("/stats", "/stats", {}),
        Route("/stats of 30 days", "/stats", {"from": ago(30), "bucket": "day"}),
        Route("/stats of 30 days and a type", "/stats", {"from": ago(30), "bucket": "hour", "type": "rare-7"}),
        Route("/topics", "/topics", {}),
        Route("/dead-letters", "/dead-letters", {}),
    ]


def _request(session: requests.Session, world: World, route: Route, expected: Sequence[int]) -> tuple[int, float]:
    began = time.monotonic()
    answer = session.get(f"{world.url}{route.path}", params=route.query, timeout=60)
    assert answer.status_code in expected, answer.text
    return answer.status_code, time.monotonic() - began


def _together(world: World, routes: Sequence[Route]) -> None:
    end = time.monotonic() + _READER_SECONDS
    statuses: Counter[int] = Counter()
    waits: defaultdict[str, list[float]] = defaultdict(list)

    def read(seed: int) -> None:
        chance = random.Random(seed)
        with requests.Session() as session:
            while time.monotonic() < end:
                route = chance.choice(routes)
                status, seconds = _request(session, world, route, (200, 404, 503))
                statuses[status] += 1
                if status != 503:
                    waits[route.name].append(seconds)

    with ThreadPoolExecutor(_READERS) as pool:
        list(pool.map(read, range(_READERS)))
    print(f"{_READERS} readers for {_READER_SECONDS} s: " + ", ".join(f"{n} x {code}" for code, n in statuses.items()))
    print(f"{'median ms':>10} {'p99 ms':>8}  with the others")
    for route in routes:
        _print(route.name, waits[route.name])


def _print(name: str, waits: Sequence[float]) -> None:
    p99 = statistics.quantiles(waits, n=100)[98] if len(waits) > 1 else float("nan")
    median = statistics.median(waits) if waits else float("nan")
    print(f"{1000 * median:>10.0f} {1000 * p99:>8.0f}  {name}", flush=True)


if __name__ == "__main__":
    main()
