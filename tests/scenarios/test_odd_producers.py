"""Records of careless producers (header names that are not text, timestamps of no year) affect only themselves."""

from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.structs import TopicPartition

from tests.clients import events
from tests.world import World

_MICROSECONDS = 1_700_000_000_000_000  # in place of milliseconds: the year 55000
_YEAR_10000, _BEFORE_CHRIST, _NONE = 253_402_300_800_000, -100_000_000_000_000, -1


class _NoText(str):
    """The name of a header of a producer that does not check for UTF-8."""

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_its_neighbours_are_stored(ready: World, client: str) -> None:
    ready.configure_topic(message_timestamp_after_max_ms=str(2**63 - 1))
    made = events(42)
    values = list(made.values())
    futures: list[Any] = []
    producer = KafkaProducer(bootstrap_servers=ready.variables["KAFKA_BROKERS"], acks="all", linger_ms=200)

    def send(value: bytes, name: str = "h", time: int | None = None) -> None:
        # Past `send`, which is more careful.
        place = TopicPartition(ready.topic, 0)
        futures.append(producer._accumulator.append(place, time, None, value, [(name, b"1")], 5000)[0])

    for value in values[:40]:
        send(value)
    send(values[40], name=_NoText())
    send(values[41], name="a\0b")
    send(b"not json", name=_NoText())
    send(b"not json", name="a\0b")
    for time in (times := (_MICROSECONDS, _YEAR_10000, _BEFORE_CHRIST, _NONE, 2**62)):
        send(b'{"at": %d}' % time, time=time)
        send(b"not json", time=time)
    producer.flush()
    assert all(future.succeeded() for future in futures)
    producer.close()
    ready.consume(kafka_client=client)
    ready.wait_for(42 + 2 + 10)
    timeless = ready.sql("DELETE FROM message WHERE produced_at IS NULL RETURNING (payload->>'at')::bigint")
    assert sorted(at for (at,) in timeless) == sorted(times)
    reasons = ready.sql("SELECT reason, count(*) FROM dead_letter GROUP BY reason ORDER BY reason")
    names = sorted(ready.sql("SELECT jsonb_object_keys(headers) FROM message WHERE NOT headers ? 'h'"))
    if client == "confluent":  # it cannot return headers if one of them has such a name
        assert ready.ids() == set(made) - {list(made)[40]}
        assert reasons == [("bad_header", 2), ("not_json", 6)]
        assert names == [("a",)]  # it ends a name at NUL
    else:
        assert ready.ids() == set(made)
        assert reasons == [("not_json", 7)]
        assert names == [("\\xff\\xfe",), ("a\\x00b",)]
