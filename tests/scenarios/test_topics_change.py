"""Topics that are recreated, truncated, deleted or extended while they are read: nothing is lost in silence."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from bootstrap.localstack.stack import Stack
from tests.clients import events
from tests.programs import Program, signalled
from tests.statements import END_ALL_CONNECTIONS
from tests.waiting import wait_until
from tests.world import World


@pytest.fixture
def three(stack: Stack) -> Iterator[World]:
    """A world with three topics."""
    world = World(stack, topics=3)
    world.init()
    yield world
    world.close()
    world.show_logs()


def _frozen(world: World, pod: Program, change: Callable[[], None]) -> None:
    """The bridge is frozen, for less than the group waits."""
    bridge = pod.child("--only bridge")
    signalled(bridge, signal.SIGSTOP)
    change()
    signalled(bridge, signal.SIGCONT)


def _stopped(world: World, pod: Program, change: Callable[[], None]) -> None:
    """No bridge runs."""
    assert pod.stop() == 0
    change()
    world.consume()


def _holding(world: World, pod: Program, change: Callable[[], None]) -> None:
    """The bridge reads nothing, because PostgreSQL rejects a batch."""
    world.admin("ALTER DATABASE {database} SET default_transaction_read_only = on")
    world.admin(END_ALL_CONNECTIONS)
    world.produce([b"{}"], partition=1)
    wait_until(lambda: pod.lines("partitions.paused"), "the bridge holds")
    change()
    world.admin("ALTER DATABASE {database} RESET default_transaction_read_only")
    world.admin(END_ALL_CONNECTIONS)
    taken = 'DELETE FROM message WHERE "partition" = 1 RETURNING 1'
    wait_until(lambda: world.sql(taken), "the batch is stored")


@pytest.mark.parametrize("later", [100, 150])
@pytest.mark.parametrize("meanwhile", [_frozen, _stopped, _holding])
def test_a_topic_that_is_recreated_is_read_from_its_start(
    ready: World, meanwhile: Callable[[World, Program, Callable[[], None]], None], later: int
) -> None:
    first, second = events(100), events(later)
    pod = ready.consume(in_flight="1")
    ready.produce(list(first.values()), partition=0)
    ready.wait_for(100)
    ready.all_committed()

    def change() -> None:
        ready.recreate_topic()
        ready.produce(list(second.values()), partition=0)

    meanwhile(ready, pod, change)
    ready.wait_for(100 + later)
    ready.holds_exactly([*first, *second])
    ready.all_committed()
    if meanwhile is not _stopped:
        [said] = pod.lines("topic.recreated")
        assert (said["topic"], f"{ready.topic}/0" in said["partitions"]) == (ready.topic, True)


@pytest.mark.parametrize("later", [0, 5])
@pytest.mark.parametrize("meanwhile", [_frozen, _stopped])
def test_what_kafka_deletes_before_it_is_read_is_counted(
    ready: World, meanwhile: Callable[[World, Program, Callable[[], None]], None], later: int
) -> None:
    first, lost, kept = events(51), events(249), events(later)
    values = list(first.values())
    pod = ready.consume()
    ready.produce(values[:50], partition=0)
    ready.wait_for(50)
    ready.all_committed()

    def change() -> None:
        ready.produce(values[50:], partition=0)  # a frozen bridge may have asked for this one already
        ready.produce(list(lost.values()), partition=0)
        ready.delete_records({0: 300})
        ready.produce(list(kept.values()), partition=0)

    meanwhile(ready, pod, change)
    pod = ready.programs[-1]
    [said] = wait_until(lambda: pod.lines("records.lost"), "the loss is said")
    stored = said["first_offset"]
    assert stored == 50 or (stored == 51 and meanwhile is _frozen)
    place = [said[name] for name in ("topic", "partition", "first_offset", "last_offset", "offsets")]
    assert place == [ready.topic, 0, stored, 299, 300 - stored]
    ready.wait_for(stored + later)
    ready.holds_exactly([*list(first)[:stored], *kept])
    ready.serve()
    _until_somebody_knows(ready, stored)


def _until_somebody_knows(world: World, first: int) -> None:
    """The loss is in /health/ready until it is acknowledged."""

    def told() -> list[dict[str, Any]]:
        body = requests.get(f"{world.url}/health/ready", timeout=30).json()
        assert (body["status"] == "ok") == (not body["lost_records"])
        losses: list[dict[str, Any]] = body["lost_records"]
        return losses

    [loss] = wait_until(told, "PostgreSQL has it")
    assert (loss["topic"], loss["first_offset"], loss["last_offset"]) == (world.topic, first, 299)
    listed = world.run("lost-records").stdout
    assert f"{world.topic}/0  offsets {first} to 299 ({300 - first})" in listed
    assert world.run("lost-records", "--acknowledge", "known").stdout == "acknowledged 1\n"
    assert not told()
    assert "no records were lost" in world.run("lost-records").stdout


def test_a_topic_that_is_deleted_stops_no_other(three: World) -> None:
    kept, gone, back = three.topics[0], three.topics[1], events(100)
    made = events(6000)
    values = list(made.values())
    pod = three.consume(batch_records="100")
    three.produce(values[:1000], topic=gone)
    three.produce(values[1000:3000], topic=kept)
    wait_until(lambda: three.count() > 500, "the load is under way")
    three.delete_topic(gone)
    three.produce(values[3000:], topic=kept)
    in_kept = set(list(made)[1000:])
    wait_until(lambda: in_kept <= three.ids(), "the other topic is stored")
    wait_until(lambda: pod.lines("topic.missing"), "it is said")
    assert [line["topic"] for line in pod.lines("topic.missing")] == [gone]
    three.create_topic(gone)
    three.produce(list(back.values()), topic=gone)
    wait_until(lambda: set(back) <= three.ids(), "it is read again")
    assert three.ids() <= {*made, *back}
    assert not pod.lines("bridge.stuck")
    assert len(pod.lines("process.started")) == len({line["pid"] for line in pod.lines("process.started")})
    assert pod.stop() == 0


def test_new_partitions_are_shown_and_read(ready: World) -> None:
    ready.serve()
    ready.consume()
    made = events(30)
    ready.produce(list(made.values())[:10], partition=0)
    ready.wait_for(10)
    ready.add_partitions(5)

    def shown() -> int:
        return len(requests.get(f"{ready.url}/topics", timeout=30).json()["topics"][0]["partitions"])

    wait_until(lambda: shown() == 5, "/topics shows them", 10)
    for partition in (3, 4):
        ready.produce(list(made.values())[10 * partition - 20 : 10 * partition - 10], partition=partition)
    ready.wait_for(30, 30)
    ready.holds_exactly(made)
