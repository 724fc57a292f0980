"""The whole consumer pod on real servers, fed by another producer than ours."""

import orjson
import pytest

from bootstrap.localstack.stack import Stack
from tests.clients import events
from tests.world import World


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
    ready.all_committed()


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
