"""Too many dead letters quarantine their partition instead of filling dead_letter, until somebody releases it."""

import orjson
import requests

from tests.clients import events
from tests.waiting import wait_until
from tests.world import World


def test_too_many_dead_letters_quarantine_a_partition_until_it_is_released(ready: World) -> None:
    ready.serve()
    pod = ready.consume(batch_records="50", in_flight="2")
    ready.produce([b"not json"] * 2_000, partition=0)
    stopped = wait_until(lambda: pod.lines("partition.quarantined"), "the partition stops")
    assert (stopped[0]["partition"], "release" in stopped[0]["release"]) == (0, True)
    good = events(300)
    ready.produce(list(good.values()), partition=1)
    wait_until(lambda: ready.ids() == set(good), "its neighbours go on")
    assert ready.sql("SELECT count(*) < 500 FROM dead_letter") == [(True,)]

    def told() -> bool:
        bridges = requests.get(f"{ready.url}/health/ready", timeout=30).json()["bridges"]
        return any(
            f"{ready.topic}/0" in bridge["quarantined"]
            and bridge["backpressure_seconds"].get("dead_letter_limit", 0) > 1
            for bridge in bridges
        )

    wait_until(told, "readiness says so")
    before = ready.count()
    assert ready.run("dead-letters", "release", "--topic", ready.topic).returncode == 0
    wait_until(lambda: pod.lines("partition.released"), "it is released")
    wait_until(lambda: len(pod.lines("partition.quarantined")) == 2, "it stops again")
    assert before < ready.count() < 1_000
    pod.stop()
    again = ready.consume(batch_records="50", in_flight="2", dead_letter_limit_percent="100")
    wait_until(lambda: again.lines("partition.released"), "more is allowed")
    ready.wait_for(2_300)
    assert ready.ids() == set(good)


def test_known_ids_stop_nothing(ready: World) -> None:
    """They tell about their sender, and nothing about the topic that others also use."""
    own = ("id", b"0b6f3f5e-2f7c-4d59-8a37-1f1f6a1f8c11")
    ready.produce([orjson.dumps({"n": n}) for n in range(1_000)], headers=[own], partition=0)
    good = events(100)
    ready.produce(list(good.values()), partition=0)
    pod = ready.consume(batch_records="50")
    ready.wait_for(1_100)
    assert ready.sql("SELECT reason, count(*) FROM dead_letter GROUP BY reason") == [("id_conflict", 999)]
    assert not pod.lines("partition.quarantined")


def test_what_is_redriven_stops_nothing(ready: World) -> None:
    ready.produce([b"not json"] * 300, partition=1)
    first = ready.consume(dead_letter_limit_percent="100")
    ready.wait_for(300)
    assert first.stop() == 0
    assert ready.run("dead-letters", "redrive", "--all").returncode == 0
    pod = ready.consume(batch_records="50")
    ready.wait_for(600)
    good = events(300)
    for partition in range(3):
        ready.produce(list(good.values())[partition::3], partition=partition)
    ready.wait_for(900)
    assert ready.ids() == set(good)
    assert not pod.lines("partition.quarantined")
