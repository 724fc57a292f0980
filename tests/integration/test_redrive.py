"""Redriving records of another producer: to their partitions, of any size; a rejected one does not stop the others."""

import uuid
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
import requests
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from tests.programs import peak_bytes
from tests.waiting import wait_until
from tests.world import World

_LARGE = b"\xff" + b"x" * 5_000_000  # not UTF-8, so that it becomes a dead letter
_TEN_MB = {"message.max.bytes": 10_000_000}


@pytest.fixture
def admin(ready: World) -> AdminClient:
    return AdminClient({"bootstrap.servers": ready.variables["KAFKA_BROKERS"]})


def bury(world: World, value: bytes, partition: int, key: bytes | None = None) -> str:
    """A dead letter whose cause has been fixed; returns its id."""
    letter_id = str(uuid.uuid4())
    world.sql(
        'INSERT INTO dead_letter (id, topic, "partition", "offset", produced_at, reason, detail, key, value)'
        " VALUES (%s, %s, %s, 7, now(), 'killed_its_worker', '', %s, %s)",
        *(letter_id, world.topic, partition, key, value),
    )
    return letter_id


def states(world: World) -> dict[str, str]:
    return {str(letter_id): state for letter_id, state in world.sql("SELECT id, state FROM dead_letter")}


def partition_sizes(world: World, partitions: int = 3) -> list[int]:
    """How many records each partition of the topic has."""
    consumer = Consumer({"bootstrap.servers": world.variables["KAFKA_BROKERS"], "group.id": "test"})
    places = [TopicPartition(world.topic, number) for number in range(partitions)]
    sizes = [consumer.get_watermark_offsets(place, timeout=10)[1] for place in places]
    consumer.close()
    return sizes


def post(world: World, path: str, body: Any = None) -> tuple[int, Any]:
    answer = requests.post(f"{world.url}/dead-letters{path}", json=body, timeout=60)
    return answer.status_code, answer.json()


def run(world: World, *arguments: str, **changed: str) -> tuple[int, str, str]:
    """Exit code, last line and error of `dead-letters redrive`."""
    done = world.run("dead-letters", "redrive", *arguments, **changed)
    return done.returncode, done.stdout.splitlines()[-1], done.stderr


def by_cli(world: World, letter_id: str) -> None:
    assert run(world, "--id", letter_id) == (0, "redriven 1, failed 0", "")


def by_http(world: World, letter_id: str) -> None:
    assert post(world, f"/{letter_id}/redrive") == (200, {"redriven": 1})


@pytest.mark.parametrize("key", [None, b"key"])
def test_a_redriven_record_keeps_its_partition(ready: World, key: bytes | None) -> None:
    ready.serve()
    for partition, count in enumerate((2, 5, 3)):
        for _ in range(count):
            bury(ready, b"{}", partition, key)
    assert post(ready, "/redrive", {"limit": 4}) == (200, {"redriven": 4, "failed": {}})
    assert run(ready, "--all") == (0, "redriven 6, failed 0", "")
    assert partition_sizes(ready) == [2, 5, 3]


def test_a_partition_that_does_not_exist_any_more_leaves_its_letter_waiting(ready: World, admin: AdminClient) -> None:
    ready.serve()
    first, gone, last = (bury(ready, b"{}", partition) for partition in (0, 2, 0))
    by_http(ready, first)  # from now on the API knows three partitions
    _recreate(admin, ready.topic, 1)
    problem = wait_until(lambda: _refused(ready, gone), "the API knows that the topic has one partition")
    assert problem["detail"] == f"topic {ready.topic} has no partition 2"
    status, answer = post(ready, "/redrive", {})
    assert (status, answer["redriven"], list(answer["failed"])) == (200, 1, [gone])
    code, said, error = run(ready, "--all")
    assert (code, said) == (3, "redriven 0, failed 1")
    assert f"{gone}: topic {ready.topic} has no partition 2" in error
    assert states(ready) == {first: "redriven", gone: "waiting", last: "redriven"}


def test_a_large_dead_letter_is_redriven_by_command_and_over_http(ready: World) -> None:
    ready.serve()
    ready.consume()
    ready.produce([_LARGE], partition=1, options=_TEN_MB)
    redrives: list[Callable[[World, str], None]] = [by_cli, by_http]
    for number, redrive in enumerate(redrives, 1):
        ready.wait_for(number)
        (letter_id,) = (letter_id for letter_id, state in states(ready).items() if state == "waiting")
        redrive(ready, letter_id)
    ready.wait_for(3)
    same = ready.sql('SELECT count(*) FROM dead_letter WHERE value = %s AND "partition" = 1', _LARGE)
    assert same == [(3,)]


def test_large_ones_fill_the_queue_and_wait_for_room(ready: World) -> None:
    ready.serve(publish_queue_bytes="8000000")
    for number in range(9):
        bury(ready, _LARGE, number % 3)
    assert post(ready, "/redrive", {"limit": 5}) == (200, {"redriven": 5, "failed": {}})
    assert run(ready, "--all", publish_queue_bytes="4000000") == (0, "redriven 4, failed 0", "")
    assert partition_sizes(ready) == [3, 3, 3]


def test_a_large_one_is_streamed_and_many_are_redriven_in_little_memory(ready: World) -> None:
    process = ready.serve(web_processes="1").family()[-1]
    assert post(ready, "/redrive", {"limit": 1}) == (200, {"redriven": 0, "failed": {}})
    before = process.memory_info().rss
    letters = [bury(ready, _LARGE, number % 3) for number in range(12)]
    url = f"{ready.url}/dead-letters/{letters[0]}"
    shown = requests.get(url, timeout=30).json()
    assert shown["too_large"] == {"bytes": len(_LARGE), "url": f"/dead-letters/{letters[0]}/value"}
    assert requests.get(f"{url}/value", timeout=30).content == _LARGE
    empty = bury(ready, b"", 0)
    assert requests.get(f"{ready.url}/dead-letters/{empty}/value", timeout=30).content == b""
    assert requests.get(f"{ready.url}/dead-letters/{uuid.uuid4()}/value", timeout=30).status_code == 404
    assert post(ready, "/redrive", {"limit": 100}) == (200, {"redriven": 13, "failed": {}})
    assert peak_bytes(process) - before < 64 << 20


def test_one_that_is_too_large_for_the_broker_waits_and_stops_no_other(ready: World, admin: AdminClient) -> None:
    ready.serve()
    _limit(admin, ready.topic, 1_000_000)
    large, small, other = bury(ready, _LARGE, 0), bury(ready, b"{}", 0), bury(ready, b"{}", 0)
    sentence = f"Kafka rejects a message of 5000001 bytes in topic {ready.topic}; its max.message.bytes is lower"
    status, problem = post(ready, f"/{large}/redrive")
    assert (status, problem["type"], problem["detail"]) == (413, "/problems/too-large", sentence)
    assert post(ready, "/redrive", {"limit": 2}) == (200, {"redriven": 1, "failed": {large: sentence}})
    code, said, error = run(ready, "--all")
    assert (code, said) == (3, "redriven 1, failed 1")
    assert f"{large}: {sentence}" in error
    assert states(ready) == {large: "waiting", small: "redriven", other: "redriven"}
    _limit(admin, ready.topic, 10_000_000)
    by_http(ready, large)


def _refused(world: World, letter_id: str) -> Any:
    status, answer = post(world, f"/{letter_id}/redrive")
    assert status in (422, 503), answer
    return answer if status == 422 else None


def _recreate(admin: AdminClient, topic: str, partitions: int) -> None:
    _done(admin.delete_topics([topic]))

    def created() -> bool:
        try:
            _done(admin.create_topics([NewTopic(topic, partitions, 1)]))
        except KafkaException:  # it is still being deleted
            return False
        return True

    wait_until(created, "the topic is created again")


def _limit(admin: AdminClient, topic: str, size: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    _done(admin.incremental_alter_configs([resource]))


def _done(futures: dict[Any, "Future[Any]"]) -> None:
    for future in futures.values():
        future.result(30)
