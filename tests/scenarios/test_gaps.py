"""Offsets without a record (compaction, transactions) do not stop the bridge."""

import pytest
import requests
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaConsumer

from tests.clients import events
from tests.waiting import wait_until
from tests.world import World


def _transactional(world: World) -> Producer:
    producer = Producer({"bootstrap.servers": world.variables["KAFKA_BROKERS"], "transactional.id": world.topic})
    producer.init_transactions(30)
    return producer


def test_of_transactions_only_what_was_committed_is_stored(ready: World) -> None:
    producer = _transactional(ready)
    kept, aborted = events(30), events(25)
    values = list(kept.values())
    pod = ready.consume()
    for number in range(3):
        producer.begin_transaction()
        for value in values[number * 10 : number * 10 + 10]:
            producer.produce(ready.topic, value, partition=0)
        producer.commit_transaction(30)
        if number == 1:
            producer.begin_transaction()
            for value in aborted.values():
                producer.produce(ready.topic, value, partition=0)
            producer.flush(30)
            producer.abort_transaction(30)
    ready.wait_for(30)
    assert pod.stop() == 0
    ready.consume()
    later = events(1)
    ready.produce(list(later.values()), partition=0)
    ready.wait_for(31)
    ready.holds_exactly([*kept, *later])  # the marks that end transactions are not messages, nor dead letters
    assert ready.sql('SELECT max("offset") FROM message') == [(59,)]


def test_a_partition_that_ends_with_marks_has_no_lag_and_a_transaction_is_read_when_it_ends(ready: World) -> None:
    """A lag that never ends would keep pods running, and end a bridge as stuck."""
    producer = _transactional(ready)
    kept, later = events(10), events(5)
    for value in (None, *kept.values()):
        producer.begin_transaction()
        producer.produce(ready.topic, value or b"{}", partition=0 if value else 1)
        producer.commit_transaction(30) if value else _abort(producer)
    ready.serve()
    ready.consume()
    ready.wait_for(10)
    ready.all_committed()
    assert _lags(ready) == [0, 0, 0]
    producer.begin_transaction()
    for value in later.values():
        producer.produce(ready.topic, value, partition=1)
    producer.flush(30)
    marker = events(1)
    ready.produce(list(marker.values()), partition=2)
    ready.wait_for(11)
    wait_until(lambda: _lags(ready) == [0, 0, 0], "what is open is no lag")
    wait_until(lambda: not _undelivered(ready), "the bridge does not wait for it")
    producer.commit_transaction(30)
    ready.wait_for(16)
    ready.holds_exactly([*kept, *later, *marker])
    ready.all_committed()


def _lags(world: World) -> list[int]:
    partitions = requests.get(f"{world.url}/topics", timeout=30).json()["topics"][0]["partitions"]
    return [partition["lag_records"] for partition in partitions]


def _undelivered(world: World) -> bool:
    """Whether the bridge, which reports every two seconds, believes that it misses records."""
    bridges = requests.get(f"{world.url}/health/ready", timeout=30).json()["bridges"]
    return not bridges or any(bridge["undelivered"] for bridge in bridges)


def _abort(producer: Producer) -> None:
    producer.flush(30)
    producer.abort_transaction(30)


@pytest.mark.skipif("isolation_level" in KafkaConsumer.DEFAULT_CONFIG, reason="kafka-python 3 knows transactions")
def test_a_client_that_knows_no_transactions_refuses_them_loudly(ready: World) -> None:
    producer = _transactional(ready)
    producer.begin_transaction()
    producer.produce(ready.topic, b"{}")
    producer.commit_transaction(30)
    bridge = ready.start("consume", "--only", "bridge", kafka_client="kafka-python")
    assert bridge.process.wait(60) == 2
    assert "KAFKA_CLIENT to confluent" in bridge.log.read_text()
    assert ready.count() == 0


def test_a_compacted_topic_is_read_to_its_end(ready: World) -> None:
    servers = {"bootstrap.servers": ready.variables["KAFKA_BROKERS"]}
    admin = AdminClient(servers)
    # The lag keeps Kafka's cleaner off segments that are being rolled, where it fails now and then.
    compact = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"}
    compact |= {"segment.ms": "1", "min.compaction.lag.ms": "1500"}
    topic = f"{ready.topic}-compact"
    admin.create_topics([NewTopic(topic, 1, 1, config=compact)])[topic].result(30)
    made = events(20)
    for value in made.values():
        ready.produce([value], topic=topic, key=b"one key", partition=0)
    wait_until(lambda: _records(servers, topic) < 10, "most are compacted away")
    ready.consume(kafka_topics=topic)
    newest = list(made)[-1]
    wait_until(lambda: newest in ready.ids(), "the newest record is stored", 60)
    assert ready.ids() < set(made)


def _records(servers: dict[str, str], topic: str) -> int:
    """How many records a topic of one partition still holds."""
    consumer = Consumer({**servers, "group.id": "test", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    count = 0
    while (found := consumer.poll(10)) is not None and found.error() is None:
        count += 1
    consumer.close()
    return count
