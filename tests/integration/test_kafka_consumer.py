"""What the bridge relies on in a member of the consumer group, for each Kafka client. Differences are named."""

import contextlib
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer, structs

from bridge.kafka.clients import new_consumer
from bridge.kafka.cluster import Cluster
from bridge.kafka.compat import IS_NG
from bridge.kafka.topic_watch import TopicWatch
from bridge.kafka.types import Committed, ConsumedRecord, Consumer, TopicPartition
from tasks.errors import ConfigurationError, Unavailable
from tests.clients import events
from tests.waiting import BUSY, wait_until
from tests.world import World


class Member:
    """A member of the world's group, and what its client told it."""

    def __init__(self, world: World, client: str) -> None:
        self.consumer: Consumer = new_consumer(world.settings(kafka_client=client))
        self.assigned: list[TopicPartition] = []
        self.revoked: list[TopicPartition] = []
        self.records: list[ConsumedRecord] = []
        self.consumer.subscribe(world.topics, self)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        assert set(assigned) <= self.consumer.assignment()
        self.assigned += assigned

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.revoked += revoked

    def poll(self, max_records: int = 500) -> int:
        """Read once; the number of records so far."""
        for partition, records in self.consumer.poll(timeout_ms=100, max_records=max_records).items():
            assert partition in self.consumer.assignment()
            self.records += records
        return len(self.records)

    def read(self, count: int) -> None:
        wait_until(lambda: self.poll() >= count, f"{count} records are read", 90)
        assert len(self.records) == count


class Members:
    """The members of one test. They leave the group at its end."""

    def __init__(self, world: World, client: str) -> None:
        self._world, self.client = world, client
        self.refuses_transactions = client == "kafka-python" and IS_NG  # it has no isolation level
        self._joined: list[Member] = []

    def join(self) -> Member:
        self._joined.append(Member(self._world, self.client))
        return self._joined[-1]

    def leave(self, member: Member) -> None:
        self._joined.remove(member)
        member.consumer.close()

    def close(self) -> None:
        for member in self._joined:
            member.consumer.close()


@pytest.fixture(params=["kafka-python", "confluent"])
def members(request: pytest.FixtureRequest, ready: World) -> Iterator[Members]:
    members = Members(ready, request.param)
    yield members
    members.close()


def test_records_come_as_they_were_sent_and_in_order(ready: World, members: Members) -> None:
    ready.produce([b'{"n": %d}' % n for n in range(700)], partition=1, key=b"key", headers=[("h", b"\xff"), ("h", b"")])
    ready.produce([None], partition=0, headers=[("a", b"1")])
    member = members.join()
    member.read(701)
    tombstone = next(record for record in member.records if record.value is None)
    assert (tombstone.key, list(tombstone.headers or ()), tombstone.offset) == (None, [("a", b"1")], 0)
    assert (tombstone.serialized_key_size, tombstone.serialized_value_size) == (-1, -1)
    others = [record for record in member.records if record.value is not None]
    assert [record.offset for record in others] == list(range(700))
    assert [record.value for record in others] == [b'{"n": %d}' % n for n in range(700)]
    assert {(record.key, tuple(record.headers or ())) for record in others} == {(b"key", (("h", b"\xff"), ("h", b"")))}
    assert others[0].serialized_value_size == len(b'{"n": 0}')
    assert abs(others[0].timestamp / 1000 - ready.sql("SELECT extract(epoch FROM now())::float")[0][0]) < 300


def test_a_poll_returns_at_once_and_no_more_than_asked_for(ready: World, members: Members) -> None:
    member = members.join()
    wait_until(lambda: member.poll() == 0 and member.assigned, "partitions are assigned", 60)
    ready.produce([b"{}"] * 20, partition=0)
    began = time.monotonic()
    polled = member.consumer.poll(timeout_ms=30_000, max_records=5)
    assert time.monotonic() - began < 10 * BUSY
    assert sum(map(len, polled.values())) <= 5


def test_a_pause_loses_nothing(ready: World, members: Members) -> None:
    ready.produce(list(events(1000).values()), partition=0, options={"linger.ms": 50})
    member = members.join()
    wait_until(lambda: member.poll(10), "the first records are read", 60)
    for _ in range(3):
        member.consumer.pause(member.consumer.assignment())
        before = len(member.records)
        for _ in range(5):
            member.poll(10)
        assert len(member.records) == before
        member.consumer.resume(member.consumer.paused())
        member.poll(10)
    member.read(1000)
    assert [record.offset for record in member.records] == list(range(1000))


def test_what_is_committed_is_not_read_again(ready: World, members: Members) -> None:
    ready.produce(list(events(100).values()), partition=0)
    first = members.join()
    first.read(100)
    assert first.consumer.commit({TopicPartition(ready.topic, 0): Committed(40, "some id")}) is None
    committed: list[object] = []
    partition = TopicPartition(ready.topic, 0)
    first.consumer.commit_async(
        {partition: Committed(60, "other id")},
        lambda positions, rejection: committed.append((dict(positions), rejection)),
    )
    wait_until(lambda: first.poll() and committed, "the commit is confirmed")
    assert committed == [({partition: 60}, None)]
    assert Cluster(ready.settings()).committed([partition]) == {partition: (60, "other id")}
    members.leave(first)
    second = members.join()
    second.read(40)
    assert second.records[0].offset == 60


def test_members_share_the_partitions_and_take_over(members: Members) -> None:
    first, second = members.join(), members.join()

    def parts() -> list[int]:
        return [len(member.consumer.assignment()) for member in (first, second)]

    with _polling(first):
        wait_until(lambda: parts() == [3, 0], "the first has all partitions", 60)
        with _polling(second):
            wait_until(lambda: sorted(parts()) == [1, 2], "they share the partitions", 60)
            assert not first.consumer.assignment() & second.consumer.assignment()
            assert first.revoked
            if members.client == "confluent":  # it revokes only what moves
                assert not set(first.revoked) & first.consumer.assignment()
        members.leave(second)
        wait_until(lambda: parts()[0] == 3, "the first has all again", 60)


@contextlib.contextmanager
def _polling(member: Member) -> Iterator[None]:
    """Poll in a thread, because kafka-python waits in a poll until all others have polled too."""
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            member.poll()

    with ThreadPoolExecutor(1) as pool:
        polls = pool.submit(poll)
        try:
            yield
        finally:
            stop.set()
            polls.result(60)


def test_marks_of_transactions_are_not_missed(ready: World, members: Members) -> None:
    if members.refuses_transactions:
        return  # see the next test
    ready.produce([b"{}"], partition=0)
    _transaction(ready, commit=False, partition=1)
    member, watch = members.join(), TopicWatch(ready.settings())
    watch.start()
    member.read(1)
    _transaction(ready, commit=True)
    ours = member.consumer.assignment()
    watch.watch(ours)
    wait_until(lambda: sum(watch.snapshot.ends.values()) == 5, "the ends are known: with two records and a mark each")
    assert watch.undelivered(member.consumer, ours)
    member.read(2)
    wait_until(lambda: member.poll() and not watch.undelivered(member.consumer, ours), "nothing is missed")
    assert [member.consumer.position(TopicPartition(ready.topic, number)) for number in (0, 1)] == [3, 2]
    watch.stop()


def test_records_of_aborted_transactions_are_not_returned(ready: World, members: Members) -> None:
    _transaction(ready, commit=False)
    ready.produce([b'{"after": 1}'], partition=0)
    member = members.join()
    if members.refuses_transactions:
        with pytest.raises(ConfigurationError, match="KAFKA_CLIENT to confluent"):
            member.read(1)
        return
    member.read(1)
    assert member.records[-1].value == b'{"after": 1}'


def test_a_partition_that_was_paused_when_it_was_revoked_is_read_when_it_comes_back(
    ready: World, members: Members
) -> None:
    stays = members.join()
    wait_until(lambda: stays.poll() == 0 and len(stays.assigned) == 3, "it has all partitions", 60)
    stays.consumer.pause(stays.consumer.assignment())
    comes = members.join()
    with _polling(comes):
        wait_until(lambda: stays.poll() == 0 and comes.consumer.assignment(), "they share the partitions", 60)
    members.leave(comes)
    wait_until(lambda: stays.poll() == 0 and len(stays.consumer.assignment()) == 3, "it has all of them again", 60)
    stays.consumer.resume(stays.consumer.paused())
    for partition in range(3):
        ready.produce([b"{}"], partition=partition)
    stays.read(3)


def test_a_seek_drops_what_was_fetched_and_keeps_a_pause(ready: World, members: Members) -> None:
    ready.produce(list(events(300).values()), partition=0)
    partition = TopicPartition(ready.topic, 0)
    member = members.join()
    wait_until(lambda: member.poll(10) >= 20, "some records are read", 60)
    member.records.clear()
    member.consumer.seek(partition, 5)
    assert member.consumer.position(partition) == 5
    member.read(295)
    assert [record.offset for record in member.records] == list(range(5, 300))
    member.consumer.pause([partition])
    member.consumer.seek(partition, 290)
    for _ in range(5):
        assert member.poll() == 295
    member.consumer.resume([partition])
    member.read(305)
    assert member.records[-1].offset == 299


def test_after_a_seek_the_position_is_where_it_went(ready: World, members: Members) -> None:
    ready.produce([b"{}"] * 50, partition=0)
    member, partition = members.join(), TopicPartition(ready.topic, 0)
    member.read(50)
    wait_until(lambda: member.poll() == 50 and member.consumer.position(partition) == 50, "the end is known")
    assert member.consumer.seek(partition, 20)
    assert member.consumer.position(partition) == 20
    member.read(80)
    assert member.consumer.position(partition) == 50
    assert [record.offset for record in member.records[50:]] == list(range(20, 50))


def test_a_poll_in_which_partitions_are_assigned_can_be_followed_by_a_seek(ready: World, members: Members) -> None:
    ready.produce(list(events(20).values()), partition=0)
    member = members.join()
    wait_until(lambda: (member.poll(1) >= 0) and member.assigned, "partitions are assigned", 60)
    for number in range(3):
        member.consumer.seek(TopicPartition(ready.topic, number), 0)
    wait_until(lambda: member.poll() and {record.offset for record in member.records} == set(range(20)), "all is read")


def test_a_header_name_that_is_not_utf_8_costs_no_neighbour(ready: World, members: Members) -> None:
    ready.produce([b"{}"] * 200, partition=0)  # enough that Python has optimized the code that reads them
    for _ in range(2):
        _bad_header(ready)
    ready.produce([b"{}"], partition=0)
    member = members.join()
    member.read(203)
    for record in member.records[200:202]:
        if members.client == "confluent":  # it cannot return any header of that record
            assert record.headers is None
        else:
            assert list(record.headers or ()) == [("\\xff", b"1")]
    assert {record.headers is None for record in [*member.records[:200], member.records[202]]} == {False}


def test_brokers_that_do_not_respond_are_named(ready: World, members: Members) -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 \(--kafka-brokers / KAFKA_BROKERS\)"):
        new_consumer(ready.settings(kafka_brokers="127.0.0.1:1", kafka_client=members.client))


def _transaction(world: World, commit: bool, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": world.variables["KAFKA_BROKERS"], "transactional.id": world.topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(world.topic, b"{}", partition=partition)
    producer.flush(30)
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


class _NotText(str):
    """A header's name of a producer that does not check for UTF-8."""

    def encode(self, *_: object) -> bytes:
        return b"\xff"


def _bad_header(world: World) -> None:
    producer = KafkaProducer(bootstrap_servers=world.variables["KAFKA_BROKERS"], acks="all")
    headers = [(_NotText("h"), b"1")]
    if IS_NG:  # whose `send` checks the name
        sent = producer._accumulator.append(structs.TopicPartition(world.topic, 0), None, None, b"{}", headers, 5000)[0]
    else:
        sent = producer.send(world.topic, b"{}", headers=headers, partition=0)
    producer.flush()
    assert sent.succeeded()
    producer.close()
