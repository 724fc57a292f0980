"""What no careful producer sends (names of headers that are no text, times of no calendar) hurts only itself."""

from typing import Any

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from kafka import KafkaProducer
from kafka.structs import TopicPartition

from tests.world import World, events

_YEAR_55000, _YEAR_BEFORE_CHRIST = 1_700_000_000_000_000, -100_000_000_000_000  # microseconds taken for milliseconds


class _NoText(str):
    """A header's name as a producer writes it that does not care for UTF-8."""

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


def _accept_any_time(world: World) -> None:
    entry = ConfigEntry("message.timestamp.after.max.ms", str(2**63 - 1), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, world.topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": world.variables["KAFKA_BROKERS"]})
    admin.incremental_alter_configs([resource])[resource].result(30)


def test_its_neighbours_are_stored(ready: World) -> None:
    _accept_any_time(ready)
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
    for time in (_YEAR_55000, _YEAR_BEFORE_CHRIST, 2**62):
        send(b"{}", time=time)
        send(b"not json", time=time)
    producer.flush()
    assert all(future.succeeded() for future in futures)
    producer.close()
    ready.consume()
    ready.wait_for(42 + 2 + 6)
    assert ready.ids() == set(made)
    reasons = ready.sql("SELECT reason, count(*) FROM dead_letter GROUP BY reason ORDER BY reason")
    assert reasons == [("bad_timestamp", 6), ("not_json", 2)]
    names = ready.sql("SELECT jsonb_object_keys(headers) FROM message WHERE NOT headers ? 'h'")
    assert sorted(names) == [("\\xff\\xfe",), ("a\\x00b",)]
