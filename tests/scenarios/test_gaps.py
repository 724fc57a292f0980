"""Offsets that hold no record (compaction, transactions) hold nothing up."""

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.waiting import wait_until
from tests.world import World, events


def test_the_marks_of_transactions_are_no_messages(ready: World) -> None:
    producer = Producer({"bootstrap.servers": ready.variables["KAFKA_BROKERS"], "transactional.id": ready.topic})
    producer.init_transactions(30)
    kept = events(30)
    values = list(kept.values())
    pod = ready.consume()
    for number in range(3):
        producer.begin_transaction()
        for value in values[number * 10 : number * 10 + 10]:
            producer.produce(ready.topic, value, partition=0)
        producer.commit_transaction(30)
    ready.wait_for(30)
    assert pod.stop() == 0
    ready.consume()
    later = events(1)
    ready.produce(list(later.values()), partition=0)
    ready.wait_for(31)
    ready.holds_exactly([*kept, *later])  # the marks that end transactions are not messages, nor dead letters
    assert ready.sql('SELECT max("offset") FROM message') == [(33,)]


def test_a_compacted_topic_is_read_to_its_end(ready: World) -> None:
    admin = AdminClient({"bootstrap.servers": ready.variables["KAFKA_BROKERS"]})
    compact = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    topic = f"{ready.topic}-compact"
    admin.create_topics([NewTopic(topic, 1, 1, config=compact)])[topic].result(30)
    for value in list(events(200).values()):
        ready.produce([value], topic=topic, key=b"one key", partition=0)
    newest = events(1)
    ready.produce(list(newest.values()), topic=topic, key=b"one key", partition=0)
    ready.consume(kafka_topics=topic)
    wait_until(lambda: set(newest) <= ready.ids(), "the newest record is stored", 60)
