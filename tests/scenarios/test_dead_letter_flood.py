"""A flood of bad records stops its partition instead of filling dead_letter, until somebody allows it to go on."""

import requests

from tests.waiting import wait_until
from tests.world import World, events


def test_a_flood_stops_its_partition_until_it_may_go_on(ready: World) -> None:
    ready.serve()
    pod = ready.consume(batch_records="50", in_flight="2")
    ready.produce([b"not json"] * 2_000, partition=0)
    stopped = wait_until(lambda: pod.lines("partition.stopped"), "the partition stops")
    assert (stopped[0]["partition"], "resume" in stopped[0]["go_on"]) == (0, True)
    good = events(300)
    ready.produce(list(good.values()), partition=1)
    wait_until(lambda: ready.ids() == set(good), "its neighbours go on")
    assert ready.sql("SELECT count(*) < 500 FROM dead_letter") == [(True,)]

    def told() -> bool:
        bridges = requests.get(f"{ready.url}/health/ready", timeout=30).json()["bridges"]
        return any(
            f"{ready.topic}/0" in bridge["stopped"] and bridge["held_seconds"].get("dead_letter_flood", 0) > 1
            for bridge in bridges
        )

    wait_until(told, "readiness says so")
    before = ready.count()
    assert ready.run("dead-letters", "resume", "--topic", ready.topic).returncode == 0
    wait_until(lambda: pod.lines("partition.released"), "it is released")
    wait_until(lambda: len(pod.lines("partition.stopped")) == 2, "it stops again")
    assert before < ready.count() < 1_000
    pod.stop()
    again = ready.consume(batch_records="50", in_flight="2", dead_letter_limit_percent="100")
    wait_until(lambda: again.lines("partition.released"), "more is allowed")
    ready.wait_for(2_300)
    assert ready.ids() == set(good)
