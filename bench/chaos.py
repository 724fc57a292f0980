"""`make chaos`: random faults under constant load, and a count of lost and repeated messages at the end.

Prints a line for each fault, with the time from its end until everything acknowledged before is stored, and one
record of each partition that was sent after: every partition must have a reader again, even if nothing was in flight.
Three users' tasks run for the messages meanwhile (bench/own/chaos.py). At the end every obligation of theirs must have
ended, with its effect or as a failed run (bench/obligations.py).

Writes bench/results/chaos.json. Exits with 1 if a message was lost, stored twice, or became a dead letter: all
messages can be stored. Also if an obligation is open or ended in another way. The same seed makes the same faults.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import orjson
import psycopg2
from confluent_kafka import Consumer, TopicPartition

from bench import obligations, servers
from bench.faults import Faults, Pods
from bench.load import SILENT, Load
from bench.own import chaos
from bench.victim import Victim
from bootstrap.localstack.stack import Stack
from tests.three_brokers import ThreeBrokers
from tests.world import World

_RECOVERY_SECONDS = 120
# By the field that distinguishes the records, which is not an id for the backend.
_KEPT = """
SELECT number, count(*) FROM (
    SELECT payload->>'id' AS number FROM message WHERE topic = %s
    UNION ALL SELECT convert_from(value, 'UTF8')::jsonb->>'id' FROM dead_letter WHERE topic = %s
) AS kept GROUP BY number
"""


def main() -> int:
    """Cause faults for some minutes; returns 0 if every message was stored exactly once."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--rate", type=int, default=500, help="records per second")
    parser.add_argument("--only", default="", help="faults whose name contains this, or one of several: a|b")
    options = parser.parse_args()
    print(f"chaos for {options.minutes} minutes, seed {options.seed}, {options.rate} records/s", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as directory,
        ThreeBrokers(Path(directory)) as brokers,
        Stack(Path(directory), {"KAFKA_BROKERS": brokers.addresses}, servers.JARS) as stack,
        closing(World(stack, topics=2)) as world,
    ):
        world.variables |= {"KAFKA_REPLICATION_FACTOR": "3", "TASKS": chaos.__name__, "TASK_WORKERS": "2"}
        result = _run(world, brokers, options)
    (servers.ROOT / "bench" / "results" / "chaos.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    faults = any(result[name] for name in ("lost", "stored twice", "not sent", "dead letters"))
    return 1 if faults or result["the other topic"]["unexplained"] or not result["the tasks"]["exact"] else 0


def _run(world: World, brokers: ThreeBrokers, options: argparse.Namespace) -> dict[str, Any]:
    world.init()
    world.sql(chaos.EFFECT)
    world.serve()
    pods = Pods(world)
    chance = random.Random(options.seed)
    victim = Victim(world, world.topics[1])
    faults = Faults(world, pods, brokers, victim, chance).all()
    chosen = [name for name in faults if any(part in name for part in options.only.split("|"))]
    ending = time.monotonic() + options.minutes * 60
    lines: list[dict[str, Any]] = []
    pods_ended = 0
    names: list[str] = []
    with Load(world, options.rate) as load, victim:
        while time.monotonic() < ending:
            time.sleep(chance.uniform(1, 4))
            names = names or chance.sample(chosen, len(chosen))  # each once before one is repeated
            name = names.pop()
            faults[name]()
            pods_ended += pods.mind()
            over = time.monotonic()
            load.probe()
            seconds = _recovery(world, load.ids, over)
            oldest = obligations.oldest_seconds(world)
            lines.append({"fault": name, "seconds": seconds, "oldest obligation": oldest})
            print(f"  {name:52} all stored after {seconds:5.1f} s, oldest obligation {oldest:5.1f} s", flush=True)
    result = _account(world, load)
    result["the other topic"] = _settled(victim)
    result["the tasks"] = obligations.settled(world, _RECOVERY_SECONDS)
    for part in ("the other topic", "the tasks"):
        for name, value in result[part].items():
            print(f"  {part}: {name:28} {value}")
    result |= {"seed": options.seed, "minutes": options.minutes, "pods ended": pods_ended, "faults": lines}
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
    servers = {"bootstrap.servers": world.variables["KAFKA_BROKERS"], "group.id": "chaos-account", **SILENT}
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
