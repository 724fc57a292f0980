"""Three brokers, of which one or two at once are killed under load: nothing acknowledged is lost, nothing twice."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

from bootstrap.localstack.stack import Stack
from tests.clients import events
from tests.three_brokers import ThreeBrokers
from tests.world import World

_COUNT = 6000


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeBrokers]:
    with ThreeBrokers(tmp_path_factory.mktemp("brokers")) as brokers:
        yield brokers


@pytest.fixture
def replicated(stack: Stack, brokers: ThreeBrokers) -> Iterator[World]:
    """A world whose topic has three replicas."""
    world = World(stack)
    world.variables |= {"KAFKA_BROKERS": brokers.addresses, "KAFKA_REPLICATION_FACTOR": "3"}
    world.init()
    yield world
    world.close()
    world.show_logs()


def _leader(world: World) -> int:
    """The broker that leads partition 0."""
    admin = AdminClient({"bootstrap.servers": world.variables["KAFKA_BROKERS"], "log_level": 0})
    found = admin.describe_topics(TopicCollection([world.topic]))[world.topic].result(30)
    return int(found.partitions[0].leader.id)


class _Clients:
    """HTTP clients that send until the block ends; `accepted` are the ids of what was answered 202."""

    def __init__(self, world: World, count: int) -> None:
        self.accepted: list[str] = []
        self.unknown = 0
        self._world, self._count = world, count
        self._done = threading.Event()

    def __enter__(self) -> "_Clients":
        self._pool = ThreadPoolExecutor(self._count)
        self._clients = [self._pool.submit(self._send) for _ in range(self._count)]
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for client in self._clients:
            client.result(60)
        self._pool.shutdown()

    def _send(self) -> None:
        with requests.Session() as session:
            while not self._done.is_set():
                answer = session.post(f"{self._world.url}/messages", json={"by": "HTTP"}, timeout=60)
                body = answer.json()
                if answer.status_code == 202:
                    self.accepted.append(body["id"])
                else:
                    assert body["type"] in ("/problems/unavailable", "/problems/unknown-outcome"), body
                    self.unknown += body["type"] == "/problems/unknown-outcome"
                self._done.wait(0.02)


# Eight starts of a broker, each of which may take 30 s on a busy machine.
def test_nothing_acknowledged_is_lost_with_brokers(replicated: World, brokers: ThreeBrokers) -> None:
    made = events(_COUNT)
    replicated.serve()
    pod = replicated.consume(batch_records="100")
    with _Clients(replicated, 4) as clients:
        for number, _ in enumerate(replicated.under_load(made, 4)):
            leader = _leader(replicated)
            killed = [leader] if number % 2 == 0 else [leader, leader % 3 + 1]
            brokers.kill(killed)
            brokers.restart(killed)
    accepted = set(clients.accepted)
    assert len(accepted) > 100
    assert len(accepted) == len(clients.accepted)
    in_kafka = sum(replicated.ends().values())  # no transaction has left marks
    assert _COUNT + len(accepted) <= in_kafka <= _COUNT + len(accepted) + clients.unknown
    replicated.wait_for(in_kafka, 120)
    stored = {str(row[0]) for row in replicated.sql("SELECT id FROM message")}
    assert accepted <= stored
    assert set(made) <= replicated.ids()
    replicated.all_committed()
    assert pod.stop() == 0


def test_init_creates_topics_that_survive_a_broker_and_warns_of_others(replicated: World) -> None:
    assert "min.insync.replicas" not in replicated.run("init", "--check").stdout
    replicated.configure_topic(min_insync_replicas="1")
    checked = replicated.run("init", "--check")
    assert checked.returncode == 0
    assert f"topic {replicated.topic} has min.insync.replicas 1, not 2" in checked.stdout


# Kafka's client keeps the leader's epoch of a topic that is gone, and ignores the lower one of its successor.
def test_a_topic_is_read_again_whose_leaders_had_failed_before_it_was_recreated(
    replicated: World, brokers: ThreeBrokers
) -> None:
    first, second = events(300), events(300)
    pod = replicated.consume()
    replicated.produce(list(first.values()))
    replicated.wait_for(300)
    for _ in range(2):
        leader = _leader(replicated)
        brokers.kill([leader])
        brokers.restart([leader])
    replicated.all_committed()
    replicated.recreate_topic()
    replicated.produce(list(second.values()))
    replicated.wait_for(600)
    replicated.holds_exactly([*first, *second])
    replicated.all_committed()
    assert pod.stop() == 0
