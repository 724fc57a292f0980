"""Bridges that join and leave a group under load lose nothing, store nothing twice, and let no partition wait long."""

import threading
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import Producer

from tests.clients import events
from tests.waiting import wait_until
from tests.world import World

_COUNT = 30_000
_PARTITIONS = 200
_ROUNDS = 3
# The longest time in which nothing of a partition was stored.
_STALLS = """
    SELECT extract(epoch FROM max(wait))::float FROM (
        SELECT "partition", stored_at - lag(stored_at) OVER (PARTITION BY "partition" ORDER BY stored_at) AS wait
        FROM message
    ) AS waits GROUP BY "partition" ORDER BY 1 DESC
"""


def test_three_bridges_take_turns(ready: World) -> None:
    made = events(_COUNT)
    values = list(made.values())
    ready.produce(values[:15_000])
    first = ready.consume(batch_records="100")
    wait_until(lambda: ready.count() > 1000, "the load is under way")
    others = [ready.consume(batch_records="100") for _ in range(2)]
    ready.produce(values[15_000:])
    assert first.stop() == 0
    wait_until(lambda: ready.count() > 20_000, "the others go on", 90)
    assert others[0].stop() == 0
    ready.wait_for(_COUNT, 90)
    ready.holds_exactly(made)
    stored = [line for pod in (first, *others) for line in pod.lines("batch.stored")]
    again = sum(line["redelivered"] for line in stored)
    print(f"{again} of {_COUNT} records were handed over twice")
    assert again < _COUNT / 4, "at most what was in flight"


class _Load:
    """An idempotent producer that sends to each partition in turn until the block ends; `sent` was acknowledged."""

    def __init__(self, world: World) -> None:
        self.sent: list[str] = []
        self._world = world
        self._done = threading.Event()

    def __enter__(self) -> "_Load":
        self._pool = ThreadPoolExecutor(1)
        self._running = self._pool.submit(self._send)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._running.result(60)
        self._pool.shutdown()

    def wait_for(self, more: int) -> None:
        """Wait until so many more were acknowledged."""
        enough = len(self.sent) + more
        wait_until(lambda: len(self.sent) > enough, "more records are acknowledged")

    def _send(self) -> None:
        servers = {"bootstrap.servers": self._world.variables["KAFKA_BROKERS"]}
        producer = Producer({**servers, "enable.idempotence": True, "compression.type": "zstd"})
        while not self._done.wait(1):
            for partition, (name, value) in enumerate(events(_PARTITIONS).items()):
                producer.produce(
                    self._world.topic,
                    value,
                    partition=partition,
                    on_delivery=lambda error, _, name=name: self.sent.append(name) if error is None else None,
                )
            producer.poll(0)
        assert producer.flush(30) == 0


def test_a_second_bridge_of_200_partitions_comes_and_goes_under_load(world: World) -> None:
    world.variables["KAFKA_PARTITIONS"] = str(_PARTITIONS)
    world.init()
    with _Load(world) as load:
        first = world.consume()
        parts = 'SELECT count(DISTINCT "partition") FROM message'
        wait_until(lambda: world.sql(parts) == [(_PARTITIONS,)], "all partitions are read", 60)
        for _ in range(_ROUNDS):
            second = world.consume()
            assigned = sum(len(line["partitions"]) for line in second.lines("partitions.assigned"))
            load.wait_for(2 * _PARTITIONS)
            assert second.stop() == 0
            assert assigned <= _PARTITIONS / 2
    world.wait_for(len(load.sent), 60)
    assert {row[0] for row in world.sql("SELECT payload->>'id' FROM message")} == set(load.sent)
    world.all_committed()
    stalls = [float(row[0]) for row in world.sql(_STALLS)]
    print(f"longest wait of a partition for a record: {stalls[0]:.1f} s, median {stalls[_PARTITIONS // 2]:.1f} s")
    revocations = [line["milliseconds"] for line in first.lines("partitions.revoked")]
    print(f"{len(revocations)} revocations, the longest took {max(revocations)} ms")
    assert stalls[0] < 60  # a busy machine starts a bridge in more than 20 s
    assert not first.lines("bridge.stuck")
