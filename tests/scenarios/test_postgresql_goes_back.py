"""PostgreSQL is restored, or fails over to a standby that lagged: what it lacks is read from Kafka again."""

import signal
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from bootstrap.localstack.stack import Stack
from tests.clients import events
from tests.programs import ROOT, Program, signalled
from tests.replication import Pair, pair
from tests.statements import END_ALL_CONNECTIONS
from tests.waiting import wait_until
from tests.world import World

_COUNT = 3000


@pytest.fixture
def servers(stack: Stack, tmp_path: Path) -> Iterator[tuple[World, Pair]]:
    """A world whose PostgreSQL is a pair of this test's own."""
    outside = {name: stack.variables[name] for name in ("KAFKA_BROKERS", "REDIS_URL")}
    with Stack(tmp_path, outside, ROOT / ".local" / "kafka-4.4.0") as own, pair(own, tmp_path) as servers:
        world = World(own)
        world.init()
        yield world, servers
        world.close()
        world.show_logs()


def _back_up(world: World) -> None:
    """Keep a copy of the database, which nobody may use meanwhile."""
    world.admin("ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    world.admin(END_ALL_CONNECTIONS)
    world.admin("CREATE DATABASE {database}_copy TEMPLATE {database}")
    world.admin("ALTER DATABASE {database} ALLOW_CONNECTIONS true")


def _restore(world: World) -> None:
    world.admin("DROP DATABASE {database} WITH (FORCE)")
    world.admin("ALTER DATABASE {database}_copy RENAME TO {database}")


def _is_said(pod: Program) -> bool:
    return bool(pod.lines("records.missing"))


@pytest.mark.parametrize("meanwhile", ["the bridge runs", "the bridge is stopped"])
@pytest.mark.parametrize("before", [0, _COUNT])
def test_what_a_backup_lacks_is_read_again(ready: World, before: int, meanwhile: str) -> None:
    made = events(before + _COUNT)
    values = list(made.values())
    pod = ready.consume(batch_records="100")
    ready.produce(values[:before])
    ready.wait_for(before)
    _back_up(ready)
    ready.produce(values[before:])
    ready.wait_for(len(made))
    ready.all_committed()
    if meanwhile == "the bridge is stopped":
        assert pod.stop() == 0
        _restore(ready)
        pod = ready.consume(batch_records="100")
    else:
        _restore(ready)
    ready.wait_for(len(made))
    ready.holds_exactly(made)
    wait_until(lambda: _is_said(pod), "it is said")
    more = events(100)
    ready.produce(list(more.values()))
    ready.wait_for(len(made) + 100)
    ready.holds_exactly([*made, *more])


def test_what_a_standby_lacks_is_read_again(servers: tuple[World, Pair]) -> None:
    world, both = servers
    made = events(2 * _COUNT)
    values = list(made.values())
    pod = world.consume(batch_records="50")
    world.produce(values[:_COUNT])
    world.wait_for(_COUNT)
    both.catch_up()
    both.part()
    world.produce(values[_COUNT:])
    wait_until(lambda: world.count() > _COUNT + 1000, "the primary stores what the standby never gets")
    both.fail_over()
    world.wait_for(2 * _COUNT)
    world.holds_exactly(made)
    wait_until(lambda: _is_said(pod), "it is said")


def test_a_batch_of_a_topic_that_is_gone_is_stored_by_a_postgresql_that_never_knew_it(ready: World) -> None:
    first, in_flight, second = events(100), events(100), events(100)
    _back_up(ready)
    pod = ready.consume()
    ready.produce(list(first.values()))
    ready.wait_for(100)
    worker = pod.child("-m tasks")
    frozen = [worker, *worker.children()]
    for process in frozen:
        signalled(process, signal.SIGSTOP)
    ready.produce(list(in_flight.values()))
    wait_until(lambda: _handed_over(pod) == 200, "the second hundred is in flight")
    ready.recreate_topic()
    ready.produce(list(second.values()))
    wait_until(lambda: pod.lines("topic.recreated"), "the bridge knows")
    _restore(ready)
    for process in frozen:
        signalled(process, signal.SIGCONT)
    ready.wait_for(200)
    ready.holds_exactly([*in_flight, *second])
    assert not pod.lines("bridge.stuck")


def test_a_run_that_a_backup_interrupts_is_run_after_its_restore(shop: World) -> None:
    shop.consume()
    shop.produce([orjson.dumps({"type": "slow", "seconds": 0.8})])
    wait_until(lambda: shop.sql("SELECT count(*) FROM chunk WHERE token IS NOT NULL") == [(1,)], "it runs")
    _back_up(shop)
    wait_until(lambda: shop.obligations() == 0, "it has ended, which the backup does not know")
    _restore(shop)
    wait_until(lambda: shop.obligations() == 0, "it has ended again", 15)
    assert shop.effects("slow").total() == 1


def _handed_over(pod: Program) -> int:
    return sum(line["records"] for line in pod.lines("batch.handed_over") if line["attempt"] == 1)
