"""`make bench-latency`: how long a message waits until it is stored, at several rates, and what the pod costs then.

From the timestamp that the producer gave the record to the log line that its batch is stored, which follows the COMMIT.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import psutil
from confluent_kafka import Producer

from bench import servers, usage
from bench.messages import generate
from bootstrap.localstack.stack import Stack
from tests.programs import Program
from tests.waiting import wait_until
from tests.world import World

_WARM_SECONDS = 3.0


def main() -> None:
    """Measure each rate on its own topic and tables, on the same servers."""
    parser = argparse.ArgumentParser(prog="bench.latency", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="duration of the load at each rate")
    parser.add_argument("--rates", type=int, nargs="+", default=[10, 300, 3000], help="messages a second")
    options = parser.parse_args()
    print(f"{'messages/s':>10} {'median ms':>10} {'p99 ms':>8} {'max ms':>8} {'pod, % of a core':>17}")
    with servers.started() as stack:
        for rate in options.rates:
            _measure(stack, rate, options.seconds)


def _measure(stack: Stack, rate: int, seconds: float) -> None:
    world = World(stack)
    try:
        world.init()
        pod = world.consume()
        wait_until(lambda: pod.lines("partitions.assigned"), "the bridge has its partitions")
        send(world, rate, _WARM_SECONDS)
        before, began, since = cpu(pod), time.monotonic(), datetime.now(UTC)
        count = send(world, rate, seconds)
        share = (cpu(pod) - before) / (time.monotonic() - began)
        world.wait_for(count + round(rate * _WARM_SECONDS), 60)
        waits = sorted(_waits(world, pod, since))
        median, p99 = statistics.median(waits), statistics.quantiles(waits, n=100)[98]
        print(f"{rate:>10} {median:>10.0f} {p99:>8.0f} {waits[-1]:>8.0f} {100 * share:>17.1f}", flush=True)
    finally:
        world.close()


def send(world: World, rate: int, seconds: float) -> int:
    """Produce at a steady rate; returns how many messages."""
    producer = Producer({"bootstrap.servers": world.variables["KAFKA_BROKERS"]})
    messages = list(generate(round(rate * seconds), 1))
    began = time.monotonic()
    for number, (key, value) in enumerate(messages):
        while (left := began + number / rate - time.monotonic()) > 0:
            producer.poll(left)  # returns early, with each acknowledgement
        producer.produce(world.topic, value, key)
    producer.flush()
    return len(messages)


def cpu(pod: Program) -> float:
    """The CPU seconds of a pod so far."""
    return sum(usage.cpu(process) for process in pod.family() if process.status() != psutil.STATUS_ZOMBIE)


def _waits(world: World, pod: Program, since: datetime) -> Sequence[float]:
    """Milliseconds from the timestamp of each record, from `since` on, to the line that it is stored."""
    stored = {
        (line["partition"], offset): servers.logged_at(line)
        for line in pod.lines("batch.stored")
        for offset in range(line["first_offset"], line["last_offset"] + 1)
    }
    query = 'SELECT "partition", "offset", extract(epoch FROM produced_at)::float FROM message WHERE produced_at >= %s'
    rows = world.sql(query, since)
    return [1000 * (stored[partition, offset] - produced) for partition, offset, produced in rows]


if __name__ == "__main__":
    main()
