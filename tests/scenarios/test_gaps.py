"""Offsets that hold no record (compaction, transactions) hold nothing up."""

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaConsumer

from tests.waiting import wait_until
from tests.world import World, events

_KNOWS_ABORTED = "isolation_level" in KafkaConsumer.DEFAULT_CONFIG  # kafka-python-ng does not, see README


def test_the_marks_of_transactions_are_no_messages(ready: World) -> None:
    producer = Producer({"bootstrap.servers": ready.variables["KAFKA_BROKERS"], "transactional.id": ready.topic})
    producer.init_transactions(30)
    kept, aborted = events(30), events(5)
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
    stored = [*kept, *([] if _KNOWS_ABORTED else aborted)]
    ready.wait_for(len(stored))
    assert pod.stop() == 0
    ready.consume()
    later = events(1)
    ready.produce(list(later.values()), partition=0)
    ready.wait_for(len(stored) + 1)
    ready.holds_exactly([*stored, *later])  # the marks that end transactions are not messages, nor dead letters
    assert ready.sql('SELECT max("offset") FROM message') == [(39,)]


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
