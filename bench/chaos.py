"""`make chaos`: random faults under constant load, and a count of lost and repeated messages at the end.

Prints a line for each fault, with the time from its end until everything acknowledged before is stored, and one
record of each partition that was sent after: every partition must have a reader again, even if nothing was in flight.
Writes bench/results/chaos.json. Exits with 1 if a message was lost, stored twice, or became a dead letter: all
messages can be stored. The same seed makes the same faults.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import psycopg2
import requests
from confluent_kafka import Consumer, Producer, TopicPartition

from bench import servers
from bench.faults import Faults, Pods
from bench.victim import Victim, id_of_place
from bootstrap.localstack.stack import Stack
from tests.three_brokers import ThreeBrokers
from tests.world import World

_RECOVERY_SECONDS = 120
_POSTS_PER_SECOND = 10
# By the field that distinguishes the records, which is not an id for the backend.
_KEPT = """
SELECT number, count(*) FROM (
    SELECT payload->>'id' AS number FROM message WHERE topic = %s
    UNION ALL SELECT convert_from(value, 'UTF8')::jsonb->>'id' FROM dead_letter WHERE topic = %s
) AS kept GROUP BY number
"""
_SILENT = {"logger": None, "log_level": 0}


class Load:
    """Records at a constant rate, from a producer and over HTTP, and the ids of those that were acknowledged.

    Half of the producer's records have an id in a header, like rows of an outbox; the others have only their place.
    """

    def __init__(self, world: World, rate: int) -> None:
        self._world = world
        self._rate = rate
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self.sent = 0
        self.acknowledged: list[str] = []  # the numbers
        self.ids: list[str] = []  # the messages' ids, as far as they are known
        self.longest_stall = 0.0
        self._threads = [threading.Thread(target=run) for run in (self._produce, self._post, self._watch)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _next(self) -> str:
        with self._lock:
            self.sent += 1
            return f"00000000-0000-4000-8000-{self.sent:012}"

    def _produce(self) -> None:
        # The linger makes batches that are larger than a poll of the bridge.
        servers = self._world.variables["KAFKA_BROKERS"]
        options = {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 1500}
        producer = Producer({**options, **_SILENT})
        while not self._ending.wait(0.1):
            for _ in range(self._rate // 10):
                with suppress(BufferError):  # Kafka is unavailable for long: not sent, so not acknowledged
                    self._send(producer, "chaos")
            producer.poll(0)
        producer.flush(60)

    def probe(self) -> None:
        """Send a record to each partition, and wait until Kafka has them."""
        producer = Producer({"bootstrap.servers": self._world.variables["KAFKA_BROKERS"], **_SILENT})
        for partition in range(int(self._world.variables["KAFKA_PARTITIONS"])):
            self._send(producer, "chaos-probe", partition)
        producer.flush(60)

    def _send(self, producer: Producer, kind: str, partition: int = -1) -> None:
        number = self._next()
        named = int(number[-12:]) % 2 == 0

        def delivered(error: Any, message: Any) -> None:
            if error is None:
                self.acknowledged.append(number)
                if named or message.offset() >= 0:  # unknown if Kafka only says that it already has the record
                    self.ids.append(number if named else id_of_place(message))

        body = orjson.dumps({"id": number, "type": kind})
        headers = [("id", number.encode())] if named else []
        producer.produce(self._world.topic, body, headers=headers, partition=partition, on_delivery=delivered)

    def _post(self) -> None:
        with requests.Session() as session:
            while not self._ending.wait(1 / _POSTS_PER_SECOND):
                body = {"id": self._next(), "type": "chaos-http"}
                with suppress(requests.RequestException):
                    if session.post(f"{self._world.url}/messages", json=body, timeout=30).status_code == 202:
                        self.acknowledged.append(body["id"])
                        self.ids.append(body["id"])

    def _watch(self) -> None:
        stored, since = 0, time.monotonic()
        while not self._ending.wait(0.25):
            with suppress(psycopg2.Error):
                count = self._world.count()
                if count != stored:
                    stored, since = count, time.monotonic()
            self.longest_stall = max(self.longest_stall, time.monotonic() - since)


def main() -> int:
    """Cause faults for some minutes; returns 0 if every message was stored exactly once."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--rate", type=int, default=500, help="records per second")
    options = parser.parse_args()
    print(f"chaos for {options.minutes} minutes, seed {options.seed}, {options.rate} records/s", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as directory,
        ThreeBrokers(Path(directory)) as brokers,
        Stack(Path(directory), {"KAFKA_BROKERS": brokers.addresses}, servers.JARS) as stack,
    ):
        world = World(stack, topics=2)
        world.variables["KAFKA_REPLICATION_FACTOR"] = "3"
        result = _run(world, brokers, options)
    (servers.ROOT / "bench" / "results" / "chaos.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    faults = any(result[name] for name in ("lost", "stored twice", "not sent", "dead letters"))
    return 1 if faults or result["the other topic"]["unexplained"] else 0


def _run(world: World, brokers: ThreeBrokers, options: argparse.Namespace) -> dict[str, Any]:
    world.init()
    world.serve()
    pods = Pods(world)
    chance = random.Random(options.seed)
    victim = Victim(world, world.topics[1])
    faults = Faults(world, pods, brokers, victim, chance).all()
    ending = time.monotonic() + options.minutes * 60
    lines: list[dict[str, Any]] = []
    pods_ended = 0
    names: list[str] = []
    with Load(world, options.rate) as load, victim:
        while time.monotonic() < ending:
            time.sleep(chance.uniform(1, 4))
            names = names or chance.sample(list(faults), len(faults))  # each once before one is repeated
            name = names.pop()
            faults[name]()
            pods_ended += pods.mind()
            over = time.monotonic()
            load.probe()
            seconds = _recovery(world, load.ids, over)
            lines.append({"fault": name, "seconds": seconds})
            print(f"  {name:48} all stored {seconds:5.1f} s after it was over", flush=True)
    result = _account(world, load)
    result["the other topic"] = _settled(victim)
    for name, value in result["the other topic"].items():
        print(f"  the other topic: {name:28} {value}")
    result |= {"seed": options.seed, "minutes": options.minutes, "pods ended": pods_ended, "faults": lines}
    world.close()
    return result


def _recovery(world: World, ids: list[str], began: float) -> float:
    """Seconds from `began` until everything that is in `ids` now is stored."""
    missing = set(ids[-50_000:])
    while missing and time.monotonic() - began < _RECOVERY_SECONDS:
        with suppress(psycopg2.Error):
            missing -= _stored(world, missing)
        time.sleep(0.1)
    return round(time.monotonic() - began, 1)


def _in_kafka(world: World) -> Counter[str]:
    """How many records Kafka has of each number: a producer whose brokers are killed may write one twice."""
    servers = {"bootstrap.servers": world.variables["KAFKA_BROKERS"], "group.id": "chaos-account", **_SILENT}
    consumer = Consumer(servers)
    ends = world.ends()
    consumer.assign([TopicPartition(world.topic, partition, 0) for partition in ends])
    found: Counter[str] = Counter()
    deadline = time.monotonic() + _RECOVERY_SECONDS
    while found.total() < sum(ends.values()) and time.monotonic() < deadline:
        found.update(orjson.loads(m.value())["id"] for m in consumer.consume(10_000, 1) if m.error() is None)
    consumer.close()
    return found


def _settled(victim: Victim) -> dict[str, int]:
    """The account of the other topic, once nothing is unexplained any more, or nothing changes."""
    began = time.monotonic()
    while (found := victim.account())["unexplained"] and time.monotonic() - began < _RECOVERY_SECONDS:
        time.sleep(1)
    return found


def _stored(world: World, ids: set[str]) -> set[str]:
    """Those of `ids` that are in one of the two tables."""
    rows = world.sql(
        "SELECT id::text FROM message WHERE id = ANY(%s::uuid[])"
        " UNION ALL SELECT message_id::text FROM dead_letter WHERE message_id = ANY(%s::uuid[])",
        list(ids),
        list(ids),
    )
    return {row[0] for row in rows}


def _account(world: World, load: Load) -> dict[str, Any]:
    acknowledged = set(load.acknowledged)
    _recovery(world, load.ids, time.monotonic())
    in_kafka = _in_kafka(world)
    kept = {number: int(count) for number, count in world.sql(_KEPT, world.topic, world.topic)}
    dead = world.sql("SELECT reason, count(*) FROM dead_letter GROUP BY reason")
    batches = [line for program in world.programs for line in program.lines("batch.stored")]
    result = {
        "acknowledged": len(acknowledged),
        "lost": len((acknowledged | in_kafka.keys()) - kept.keys()),
        "stored twice": sum(count > in_kafka[number] for number, count in kept.items()),
        "twice in Kafka": sum(count > 1 for count in in_kafka.values()),
        "stored": len(kept),
        "not sent": sum(int(message_id[-12:]) > load.sent for message_id in kept),
        "dead letters": dict(dead),
        "records handed over again": sum(line["redelivered"] for line in batches),
        "longest stall": round(load.longest_stall, 1),
    }
    print()
    for name, value in result.items():
        print(f"  {name:28} {value}")
    return result


if __name__ == "__main__":
    sys.exit(main())
