"""`make chaos`: every fault at random under constant load, and at the end the count: what was lost, what came twice.

Prints a line for each fault with the time from its end until all is stored that was acknowledged before, and
one record of each partition sent after: who reads a partition has to be there again, even if nothing was on its way.
Writes bench/results/chaos.json. Exits 1 when anything was lost, came twice or became a dead letter: all that is sent
can be stored. The same seed makes the same faults.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import psycopg2
import requests
from confluent_kafka import Producer

from bench.faults import Faults, Pods
from bootstrap.stack import Stack
from tests.world import World

_ROOT = Path(__file__).parent.parent
_RECOVERY_SECONDS = 120
_POSTS_PER_SECOND = 10
# By the field that tells the records apart, which is no id to the backend.
_TWICE = """
SELECT count(*) FROM (
    SELECT FROM (
        SELECT payload->>'id' AS number FROM message
        UNION ALL SELECT convert_from(value, 'UTF8')::jsonb->>'id' FROM dead_letter
    ) AS kept GROUP BY number HAVING count(*) > 1
) AS twice
"""
_PLACES = uuid.UUID("6f9b1d9e-6a57-5d0e-9f0b-0d5c1c7e6a02")  # of ids that are made from a place
_SILENT = {"logger": None, "log_level": 0}


class Load:
    """Records at a constant rate, from a producer and over HTTP, and the ids of those that were acknowledged.

    Half of the producer's records bring an id in a header, as rows of an outbox do; the others have only their place.
    """

    def __init__(self, world: World, rate: int) -> None:
        self._world = world
        self._rate = rate
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self.sent = 0
        self.acknowledged: list[str] = []
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
        # Waiting makes batches that are larger than what the bridge polls at once.
        servers = self._world.variables["KAFKA_BROKERS"]
        options = {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 1500}
        producer = Producer({**options, **_SILENT})
        while not self._ending.wait(0.1):
            for _ in range(self._rate // 10):
                with suppress(BufferError):  # Kafka is away for long: not sent, so not acknowledged
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
                self.acknowledged.append(number if named else _id_of_place(message))

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

    def _watch(self) -> None:
        stored, since = 0, time.monotonic()
        while not self._ending.wait(0.25):
            with suppress(psycopg2.Error):
                count = self._world.count()
                if count != stored:
                    stored, since = count, time.monotonic()
            self.longest_stall = max(self.longest_stall, time.monotonic() - since)


def _id_of_place(message: Any) -> str:
    """The id of a message whose record has only its place, as the README says it is made."""
    _, timestamp = message.timestamp()
    return str(uuid.uuid5(_PLACES, f"{message.topic()}/{message.partition()}/{message.offset()}/{timestamp}"))


def main() -> int:
    """Break things for so many minutes; 0 when everything was stored as a message, and once."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--rate", type=int, default=500, help="records per second")
    options = parser.parse_args()
    print(f"chaos for {options.minutes} minutes, seed {options.seed}, {options.rate} records/s", flush=True)
    jars = _ROOT / ".local" / "kafka-4.4.0"
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory, Stack(Path(directory), {}, jars) as stack:
        result = _run(World(stack), options)
    (_ROOT / "bench" / "results" / "chaos.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    return 1 if any(result[name] for name in ("lost", "stored twice", "not sent", "dead letters")) else 0


def _run(world: World, options: argparse.Namespace) -> dict[str, Any]:
    world.init()
    world.serve()
    pods = Pods(world)
    chance = random.Random(options.seed)
    faults = Faults(world, pods, chance).all()
    ending = time.monotonic() + options.minutes * 60
    lines: list[dict[str, Any]] = []
    pods_ended = 0
    names: list[str] = []
    with Load(world, options.rate) as load:
        while time.monotonic() < ending:
            time.sleep(chance.uniform(1, 4))
            names = names or chance.sample(list(faults), len(faults))  # each once before any comes again
            name = names.pop()
            faults[name]()
            pods_ended += pods.mind()
            over = time.monotonic()
            load.probe()
            seconds = _recovery(world, load.acknowledged, over)
            lines.append({"fault": name, "seconds": seconds})
            print(f"  {name:48} all stored {seconds:5.1f} s after it was over", flush=True)
    result = _account(world, load)
    result |= {"seed": options.seed, "minutes": options.minutes, "pods ended": pods_ended, "faults": lines}
    world.close()
    return result


def _recovery(world: World, acknowledged: list[str], began: float) -> float:
    """Seconds since `began` until all that is in `acknowledged` now is stored."""
    missing = set(acknowledged[-50_000:])
    while missing and time.monotonic() - began < _RECOVERY_SECONDS:
        with suppress(psycopg2.Error):
            missing -= _stored(world, missing)
        time.sleep(0.1)
    return round(time.monotonic() - began, 1)


def _stored(world: World, ids: set[str]) -> set[str]:
    """Which of `ids` are in one of the two tables."""
    rows = world.sql(
        "SELECT id::text FROM message WHERE id = ANY(%s::uuid[])"
        " UNION ALL SELECT message_id::text FROM dead_letter WHERE message_id = ANY(%s::uuid[])",
        list(ids),
        list(ids),
    )
    return {row[0] for row in rows}


def _account(world: World, load: Load) -> dict[str, Any]:
    acknowledged = set(load.acknowledged)
    _recovery(world, load.acknowledged, time.monotonic())
    stored = world.ids()
    dead = world.sql("SELECT reason, count(*) FROM dead_letter GROUP BY reason")
    batches = [line for program in world.programs for line in program.lines("batch.stored")]
    result = {
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - _stored(world, acknowledged)),
        "stored twice": int(world.sql(_TWICE)[0][0]),
        "stored": len(stored),
        "not sent": sum(int(message_id[-12:]) > load.sent for message_id in stored),
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
