"""A record is its place, a message is the id of its sender: nothing new is ever treated as known."""

import uuid
from collections.abc import Sequence

import orjson
import pytest
import requests

from tests.clients import events
from tests.waiting import wait_until
from tests.world import World

ENTITY = "0b6f3f5e-2f7c-4d59-8a37-1f1f6a1f8c11"
TRACES = (
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    b"00-5cf92f3577b34da6a3ce929d0e0e4736-11f067aa0b-01",
)


def state(status: str, entity: str = ENTITY) -> bytes:
    return orjson.dumps({"id": entity, "status": status})


def test_every_version_of_an_entity_is_a_message(ready: World) -> None:
    ready.produce([state(status) for status in ("on", "off", "on", "off", "on")], partition=0)
    ready.produce([state("on")], partition=0, key=b"another key")
    ready.produce([state("on")], partition=0, headers=[("h", b"1")])
    entities = [str(uuid.uuid4()) for _ in range(40)]
    ready.produce([state(f"v{version}", entity) for version in range(25) for entity in entities], partition=0)
    behind = events(200)
    ready.produce(list(behind.values()), partition=0)
    ready.consume()
    ready.wait_for(7 + 1000 + 200)
    assert ready.sql("SELECT count(*) FROM dead_letter") == [(0,)]
    versions = ready.sql("SELECT payload->>'status' FROM message WHERE payload->>'id' = %s ORDER BY \"offset\"", ENTITY)
    assert [row[0] for row in versions] == ["on", "off", "on", "off", "on", "on", "on"]


def test_an_outbox_row_sent_twice_is_one_message(ready: World) -> None:
    value = b'{"total": 1.0, "order": 7}'
    for number, written in enumerate((ENTITY, ENTITY.upper(), ENTITY)):
        # A sender that tries again has a new trace; JSON may be written in another way.
        headers = [("id", written.encode()), ("traceparent", TRACES[number % 2]), ("kind", b"order")]
        ready.produce([value if number < 2 else b'{"order":7,"total":1.00}'], headers=headers, partition=number)
    pod = ready.consume()
    ready.produce(list(events(1).values()))
    duplicates = wait_until(
        lambda: found if len(found := pod.lines("message.duplicate")) == 2 else [], "both are told of"
    )
    ready.wait_for(2)
    assert {line["id"] for line in duplicates} == {ENTITY}
    [place] = ready.sql('SELECT "partition", "offset" FROM message WHERE id = %s', ENTITY)
    for line in duplicates:
        assert (line["stored_partition"], line["stored_offset"]) == place != (line["partition"], line["offset"])
    assert ready.sql("SELECT count(*) FROM dead_letter") == [(0,)]


@pytest.mark.parametrize(
    ("value", "key", "more"),
    [
        (b'{"total": 2, "type": "paid"}', b"k", ()),
        (b'{"total": 1, "type": "paid"}', b"another", ()),
        (b'{"total": 1, "type": "refunded"}', b"k", ()),
        (b'{"total": 1, "type": "paid"}', b"k", [("kind", b"order")]),
        (b'{"total": 1, "type": "paid"}', b"k", [("ce_type", b"order.refunded")]),
    ],
    ids=["payload", "key", "type", "headers", "type in a header"],
)
def test_another_message_with_a_known_id_is_a_conflict(
    ready: World, value: bytes, key: bytes, more: Sequence[tuple[str, bytes]]
) -> None:
    own = ("id", ENTITY.encode())
    ready.produce([b'{"total": 1, "type": "paid"}'], key=b"k", headers=[own], partition=0)
    ready.produce([value], key=key, headers=[own, *more], partition=0)
    ready.consume()
    ready.wait_for(2)
    assert ready.sql("SELECT reason, message_id::text, value FROM dead_letter")[0][:2] == ("id_conflict", ENTITY)


def test_a_header_that_is_no_uuid_hides_nothing(ready: World) -> None:
    for number in (b"1", b"2", b"1"):
        event = [("ce_specversion", b"1.0"), ("ce_source", b"/shop"), ("ce_type", b"paid"), ("ce_id", number)]
        ready.produce([b"{}"], headers=[("message-id", b"constant"), ("id", b"7"), *event], partition=0)
    ready.consume()
    ready.produce(list(events(1).values()), partition=0)
    ready.wait_for(3)
    assert ready.sql("SELECT headers->>'ce_id' FROM message WHERE headers ? 'ce_id' ORDER BY 1") == [("1",), ("2",)]


def test_ids_are_claimed_per_topic(ready: World) -> None:
    other = f"{ready.topic}-other"
    variables = {"kafka_topics": f"{ready.topic},{other}"}
    assert ready.run("init", **variables).returncode == 0
    for topic in (ready.topic, other):
        ready.produce([b'{"topic": "%s"}' % topic.encode()], topic=topic, headers=[("id", ENTITY.encode())])
    ready.consume(**variables)
    ready.wait_for(2)
    assert ready.sql("SELECT topic FROM message WHERE id = %s ORDER BY topic", ENTITY) == [(ready.topic,), (other,)]
    ready.serve(**variables)
    for topic in (ready.topic, other):
        answer = requests.get(f"{ready.url}/messages/{ENTITY}?topic={topic}", timeout=30)
        assert answer.json()["payload"] == {"topic": topic}
    assert requests.get(f"{ready.url}/messages/{ENTITY}?topic=none", timeout=30).status_code == 404
    assert ready.get(ENTITY)["topic"] in (ready.topic, other)
