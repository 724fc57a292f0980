"""The laws of every publisher, for the Kafka publisher on a real broker and for the one that tests use."""

import contextlib
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise

import psutil
import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ClientPartition
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from bridge.kafka.publisher import KafkaPublisher, Publisher, Refused, TooLarge, UnknownOutcome
from tasks.errors import BackendError, Unavailable
from tests.fakes import MemoryPublisher
from tests.programs import signalled
from tests.waiting import BUSY, wait_until
from tests.world import World


@pytest.fixture
def publisher(ready: World) -> Iterator[KafkaPublisher]:
    made = KafkaPublisher(ready.settings())
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["memory", "kafka"])
def test_offsets_of_a_key_grow_and_the_place_names_the_topic(
    ready: World, publisher: KafkaPublisher, kind: str
) -> None:
    obeying: Publisher = publisher if kind == "kafka" else MemoryPublisher()
    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(lambda n: obeying.send(ready.topic, b"key", b"%d" % n, [])(), range(20)))
    assert {place.topic for place in places} == {ready.topic}
    assert len({place.partition for place in places}) == 1
    assert sorted(place.offset for place in places) == list(range(20))
    assert obeying.unavailable_reason() is None


@pytest.mark.parametrize("kind", ["memory", "kafka"])
def test_a_message_goes_to_the_partition_that_is_named(ready: World, publisher: KafkaPublisher, kind: str) -> None:
    obeying: Publisher = publisher if kind == "kafka" else MemoryPublisher(partitions=3)
    for partition in (2, 0, 1):
        places = [obeying.send(ready.topic, key, b"{}", [], partition)() for key in (None, b"a", b"b")]
        assert places == [(ready.topic, partition, offset) for offset in range(3)]


@pytest.mark.parametrize("kind", ["memory", "kafka"])
def test_a_partition_that_does_not_exist_refuses_only_its_message(
    ready: World, publisher: KafkaPublisher, kind: str
) -> None:
    obeying: Publisher = publisher if kind == "kafka" else MemoryPublisher(partitions=3)
    for partition in (3, -1):
        with pytest.raises(Refused, match=f"{ready.topic} has no partition {partition}"):
            obeying.send(ready.topic, None, b"{}", [], partition)()
    assert obeying.send(ready.topic, None, b"{}", [])().offset == 0


def test_a_published_message_lies_where_it_says(ready: World, publisher: KafkaPublisher) -> None:
    places = [publisher.send(ready.topic, b"key", b'{"n": 1}', [("name", b"value")])() for _ in range(3)]
    assert len({place.partition for place in places}) == 1
    assert [place.offset for place in places] == [0, 1, 2]
    consumer = KafkaConsumer(bootstrap_servers=ready.variables["KAFKA_BROKERS"], consumer_timeout_ms=10_000)
    partition = TopicPartition(ready.topic, places[0].partition)
    consumer.assign([partition])
    consumer.seek(partition, 2)
    found = next(consumer)
    consumer.close()
    assert (found.offset, found.key, found.value, list(found.headers)) == (2, b"key", b'{"n": 1}', [("name", b"value")])


def test_a_key_has_the_partition_that_kafkas_own_clients_give_it(ready: World, publisher: KafkaPublisher) -> None:
    keys = [f"key-{number}".encode() for number in range(20)]
    places = [wait() for wait in [publisher.send(ready.topic, key, b"{}", []) for key in keys]]
    # As kafka-python's partitioner chooses, which computes the same murmur2 hash as Kafka's Java client.
    assert [place.partition for place in places] == [1, 0, 2, 2, 0, 2, 2, 1, 1, 0, 2, 1, 2, 1, 1, 0, 1, 0, 2, 0]


def test_records_without_a_key_travel_together(ready: World, publisher: KafkaPublisher) -> None:
    publisher.send(ready.topic, None, b"{}", [])()  # what is sent before the partitions are known is distributed later
    waits = [publisher.send(ready.topic, None, b"{}", []) for _ in range(300)]
    partitions = [wait().partition for wait in waits]
    assert sum(a != b for a, b in pairwise(partitions)) < 100, "one by one they would change 200 times"


def test_everything_a_record_may_be_is_published(ready: World, publisher: KafkaPublisher) -> None:
    for key, value in ((None, None), (b"", b""), (b"k", None)):
        place = publisher.send(ready.topic, key, value, [("empty", None), ("twice", b"1"), ("twice", b"")], 0)()
    consumer = Consumer({"bootstrap.servers": ready.variables["KAFKA_BROKERS"], "group.id": "test"})
    consumer.assign([ClientPartition(*place[:2], 0)])
    found = [message for message in consumer.consume(3, 20) if message.error() is None]
    assert [(message.key(), message.value()) for message in found] == [(None, None), (b"", b""), (b"k", None)]
    assert found[0].headers() == [("empty", None), ("twice", b"1"), ("twice", b"")]
    consumer.close()


def test_a_topic_that_kafka_does_not_have_is_named(ready: World, publisher: KafkaPublisher) -> None:
    with pytest.raises(Unavailable, match=f"{ready.topic}-other"):
        publisher.send(f"{ready.topic}-other", None, b"{}", [])()


def test_a_recreated_topic_gets_messages_again(ready: World, publisher: KafkaPublisher) -> None:
    assert publisher.send(ready.topic, None, b"{}", [], 0)().offset == 0
    ready.recreate_topic()

    def accepted() -> bool:
        with contextlib.suppress(BackendError):
            return publisher.send(ready.topic, None, b"{}", [], 0)().offset >= 0
        return False

    wait_until(accepted, "messages are accepted again", 60)


def test_clocks_that_differ_are_named(ready: World, publisher: KafkaPublisher) -> None:
    ready.configure_topic(message_timestamp_before_max_ms="0")  # every message is late, as if the clocks differed
    with pytest.raises(Unavailable, match="clocks"):
        publisher.send(ready.topic, None, b"{}", [])()


def test_the_broker_alone_says_what_is_too_large(ready: World, publisher: KafkaPublisher) -> None:
    large = b'"%s"' % (b"x" * 9_000_000)
    assert publisher.send(ready.topic, None, large, [])().topic == ready.topic
    with pytest.raises(TooLarge, match=f"11000000 bytes.* {ready.topic}; .*max.message.bytes"):
        publisher.send(ready.topic, None, b"x" * 11_000_000, [])()


def test_all_that_is_sent_at_once_waits_no_longer_than_one(ready: World) -> None:
    publisher = KafkaPublisher(ready.settings(publish_timeout_seconds="2"))
    publisher.send(ready.topic, None, b"{}", [])()
    kafka = psutil.Process(ready.stack.servers["kafka"].pid)
    signalled(kafka, signal.SIGSTOP)
    try:
        began = time.monotonic()
        for wait in [publisher.send(ready.topic, None, b"{}", []) for _ in range(20)]:
            with pytest.raises(UnknownOutcome):
                wait()
        assert time.monotonic() - began < 3.5 * BUSY, "20 waits of 2 s, one after the other"
    finally:
        signalled(kafka, signal.SIGCONT)
    publisher.close()


def test_without_a_broker_it_is_surely_not_kept(ready: World) -> None:
    publisher = KafkaPublisher(ready.settings(kafka_brokers="127.0.0.1:1"))
    assert "KAFKA_BROKERS" in (publisher.unavailable_reason() or "")
    with closing(publisher), pytest.raises(Unavailable, match="KAFKA_BROKERS"):
        publisher.send(ready.topic, None, b"{}", [])()
