"""The whole consumer pod on real servers, fed by another producer than ours."""

import orjson
import pytest
from confluent_kafka import Producer

from bootstrap.stack import Stack
from bridge.clients import new_consumer
from bridge.ends import Ends
from tests.waiting import wait_until
from tests.world import World, events


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_records_of_every_compression_are_stored(ready: World, codec: str) -> None:
    made = events(300)
    ready.produce(list(made.values()), options={"compression.type": codec, "linger.ms": 50})
    ready.consume()
    ready.wait_for(300)
    assert ready.ids() == set(made)


def test_several_topics_at_once(stack: Stack) -> None:
    world = World(stack, topics=3)
    try:
        world.init()
        for topic in world.topics:
            world.produce(list(events(50).values()), topic)
        world.consume()
        world.wait_for(150)
        counts = world.sql("SELECT topic, count(*) FROM message GROUP BY topic")
        assert sorted(counts) == sorted((topic, 50) for topic in world.topics)
    finally:
        world.close()


def test_any_json_any_cloudevent_and_what_is_neither(ready: World) -> None:
    structured = {"specversion": "1.0", "id": "a-1", "source": "/shop", "type": "order.created", "data": {"n": 1}}
    ready.produce([b"[1, 2]", b'"text"', b"17", b"null", None, b'{"any": "object"}'])
    ready.produce([orjson.dumps(structured)] * 2)
    binary = [("ce_specversion", b"1.0"), ("ce_id", b"b-1"), ("ce_source", b"/shop"), ("ce_type", b"order.paid")]
    ready.produce([b'{"n": 2}'] * 2, headers=binary)
    ready.produce([b"neither"], key=b"\xff\x00", headers=[("bytes", b"\xfe")])
    ready.consume()
    ready.wait_for(6 + 1 + 1 + 1)
    assert ready.sql("SELECT type, count(*) FROM message WHERE type IS NOT NULL GROUP BY type ORDER BY type") == [
        ("order.created", 1),
        ("order.paid", 1),
    ]
    key, value, headers, reason = ready.sql("SELECT key, value, headers, reason FROM dead_letter")[0]
    assert (bytes(key), bytes(value), reason) == (b"\xff\x00", b"neither", "not_json")
    assert headers == [["bytes", "/g=="]]


def test_offsets_are_committed_up_to_the_end_and_read_once(ready: World) -> None:
    made = list(events(500).values())
    ready.produce(made[:400])
    pod = ready.consume()
    ready.wait_for(400)
    assert pod.stop() == 0
    ready.produce(made[400:])
    again = ready.consume()
    ready.wait_for(500)
    assert sum(line["redelivered"] for line in again.lines("batch.stored")) == 0
    assert again.stop() == 0
    consumer = new_consumer(ready.settings(), None)
    wait_until(lambda: consumer.poll(timeout_ms=100) is not None and consumer.assignment(), "partitions are assigned")
    committed = {partition: consumer.committed(partition) for partition in consumer.assignment()}
    assert sum(offset or 0 for offset in committed.values()) == 500
    assert committed == consumer.end_offsets(list(committed)) or 0 not in consumer.end_offsets(list(committed)).values()
    consumer.close(autocommit=False)


def test_a_pause_loses_nothing(ready: World) -> None:
    ready.produce(list(events(1000).values()), partition=0, options={"linger.ms": 50})
    consumer = new_consumer(ready.settings(), None)
    offsets: list[int] = []

    def read(partitions_paused: bool = False) -> bool:
        for records in consumer.poll(timeout_ms=100, max_records=10).values():
            assert not partitions_paused
            offsets.extend(record.offset for record in records)
        return bool(offsets)

    wait_until(read, "the first records are read")
    for _ in range(3):
        consumer.pause(*consumer.assignment())
        for _ in range(5):
            read(partitions_paused=True)
        consumer.resume(*consumer.paused())
        read()
    wait_until(lambda: read() and len(offsets) >= 1000, "all records are read")
    assert offsets == list(range(1000))
    consumer.close(autocommit=False)


def test_records_are_missed_until_they_are_read_and_marks_of_transactions_never(ready: World) -> None:
    ready.produce([b"{}"], partition=0)
    consumer, ends = new_consumer(ready.settings(), None), Ends(ready.settings())
    ends.start()
    wait_until(lambda: consumer.poll(timeout_ms=100), "the first record is read")
    producer = Producer({"bootstrap.servers": ready.variables["KAFKA_BROKERS"], "transactional.id": ready.topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(ready.topic, b"{}", partition=0)
    producer.commit_transaction(30)
    ours = consumer.assignment()
    wait_until(lambda: sum(ends.of(ours).values()) == 3, "the end is known: two records and a mark")
    assert ends.undelivered(consumer, ours)
    wait_until(lambda: consumer.poll(timeout_ms=100), "the second record is read")
    wait_until(lambda: consumer.poll(timeout_ms=100) or not ends.undelivered(consumer, ours), "nothing is missed")
    consumer.close(autocommit=False)


def test_batches_are_bounded_by_count_and_bytes(ready: World) -> None:
    ready.produce([orjson.dumps({"n": n, "filler": "x" * 100}) for n in range(1000)], partition=0)
    pod = ready.consume(batch_records="100", batch_bytes="5000")
    ready.wait_for(1000)
    counts = [line["records"] for line in pod.lines("batch.handed_over")]
    assert max(counts) <= 5000 // 110
    assert sum(counts) == 1000


def test_a_record_larger_than_a_batch_travels_alone(ready: World) -> None:
    large = orjson.dumps({"id": "00000000-0000-4000-8000-000000000001", "filler": "x" * 5_000_000})
    ready.produce([*events(10).values(), large, *events(10).values()], options={"message.max.bytes": 10_000_000})
    ready.consume()
    ready.wait_for(21)
    assert ready.sql("SELECT length(payload->>'filler') FROM message WHERE payload ? 'filler'") == [(5_000_000,)]
