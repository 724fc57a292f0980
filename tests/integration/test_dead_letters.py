"""What an operator does with dead letters: list, show, redrive exactly once, discard with a note."""

import signal
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import orjson
from confluent_kafka import Consumer, Message, TopicPartition

from bootstrap.commands.dead_letters import chosen
from bridge.kafka.publisher import KafkaPublisher
from bridge.redrive import redrive
from tasks.store import connection, dead_letters
from tasks.store.dead_letters import Selection
from tests.waiting import wait_until
from tests.world import World


def bury(
    world: World,
    value: bytes | None,
    key: bytes | None = None,
    headers: str | None = None,
    topic: str | None = None,
    reason: str = "killed_its_worker",
) -> str:
    """A dead letter whose cause has been fixed; returns its id."""
    letter_id = str(uuid.uuid4())
    world.sql(
        'INSERT INTO dead_letter (id, topic, "partition", "offset", produced_at, reason, detail, key, value, headers)'
        " VALUES (%s, %s, 0, 7, now(), %s, 'long ago', %s, %s, %s)",
        *(letter_id, topic or world.topic, reason, key, value, headers),
    )
    return letter_id


def said(done: "subprocess.CompletedProcess[str]", code: int = 0) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def states(world: World) -> dict[str, str]:
    return {str(letter_id): state for letter_id, state in world.sql("SELECT id, state FROM dead_letter")}


def in_kafka(world: World) -> list[Message]:
    """Every record of the world's topic."""
    consumer = Consumer({"bootstrap.servers": world.variables["KAFKA_BROKERS"], "group.id": "test"})
    try:
        parts = [TopicPartition(world.topic, number, 0) for number in range(3)]
        expected: int = sum(consumer.get_watermark_offsets(part, timeout=10)[1] for part in parts)
        consumer.assign(parts)
        found: list[Message] = []

        def all_read() -> bool:
            found.extend(consumer.consume(100, 0.2))
            return len(found) >= expected

        wait_until(all_read, "all records are read")
        return found
    finally:
        consumer.close()


def test_a_poisoned_record_is_listed_and_shown_with_its_bytes(ready: World) -> None:
    ready.consume()
    ready.produce([b"\xffnot \x1b[31mjson"], key=b"k\xfe", headers=[("h", b"\x00\xff")])
    ready.wait_for(1)
    (letter,) = map(orjson.loads, said(ready.run("dead-letters", "list", "--json")).splitlines())
    assert (letter["reason"], letter["state"], letter["topic"]) == ("invalid_utf8", "waiting", ready.topic)
    assert letter["id"] in said(ready.run("dead-letters", "list"))
    shown = said(ready.run("dead-letters", "show", letter["id"]))
    assert "\\xffnot \\x1b[31mjson" in shown
    assert "\\x00\\xff" in shown
    assert "byte 0 is not UTF-8" in shown
    raw = ready.start("dead-letters", "show", letter["id"], "--raw")
    assert raw.process.wait(30) == 0
    assert raw.log.read_bytes() == b"\xffnot \x1b[31mjson"


def test_filters_narrow_the_list(ready: World) -> None:
    first = bury(ready, b"1", reason="nul")
    second = bury(ready, b"2", topic="other")
    third = bury(ready, b"3")
    ready.sql("UPDATE dead_letter SET dead_at = timestamptz '2026-01-01Z' WHERE id = %s", first)
    ready.sql("UPDATE dead_letter SET state = 'discarded' WHERE id = %s", third)
    for arguments, found in (
        ([], [second, first]),
        (["--limit", "1"], [second]),
        (["--id", f"{first},{third}", "--id", second], [second, first]),
        (["--topic", "other"], [second]),
        (["--reason", "nul"], [first]),
        (["--state", "discarded"], [third]),
        (["--state", "any", "--from", "2026-01-02T00:00:00Z"], [third, second]),
        (["--to", "2026-01-02T00:00:00+00:00"], [first]),
    ):
        listed = said(ready.run("dead-letters", "list", "--json", *arguments)).splitlines()
        assert [orjson.loads(line)["id"] for line in listed] == found, arguments


def test_a_cured_record_redriven_twice_is_stored_once(ready: World) -> None:
    nameless = bury(ready, b'{"no": "id"}', key=b"k")
    message_id = str(uuid.uuid4())
    bury(ready, orjson.dumps({"id": message_id}))
    assert "redriven 2, failed 0" in said(ready.run("dead-letters", "redrive", "--all"))
    assert set(states(ready).values()) == {"redriven"}
    ready.sql("UPDATE dead_letter SET state = 'waiting'")  # as after a crash between acknowledgement and mark
    assert "redriven 2, failed 0" in said(ready.run("dead-letters", "redrive", "--topic", ready.topic))
    assert len(in_kafka(ready)) == 4
    ready.consume()
    ready.produce([b"the last one"], partition=0)
    ready.produce([b"the last one"], partition=1)
    ready.produce([b"the last one"], partition=2)
    ready.wait_for(2 + 2 + 3)
    assert ready.ids() == {nameless, message_id}


def test_key_value_and_headers_arrive_as_they_were(ready: World) -> None:
    value = b'{"id": "00000000-0000-4000-8000-000000000001", "n": 1.10}'
    letter_id = bury(ready, value, b"\xffkey", '[["h", "AP8="], ["h", "MQ=="]]')
    said(ready.run("dead-letters", "redrive", "--id", letter_id))
    (record,) = in_kafka(ready)
    assert (record.key(), record.value()) == (b"\xffkey", value)
    added = [(name, letter_id.encode()) for name in ("redriven-from", "message-id")]
    assert record.headers() == [("h", b"\x00\xff"), ("h", b"1"), *added]


def test_a_dry_run_and_a_run_that_selects_nothing_change_nothing(ready: World) -> None:
    letter_id = bury(ready, b"{}")
    before = ready.sql("SELECT * FROM dead_letter")
    assert "would redrive 1; nothing was changed" in said(ready.run("dead-letters", "redrive", "--all", "--dry-run"))
    discarded = ready.run("dead-letters", "discard", "--id", letter_id, "--note", "n", "--dry-run")
    assert f"would discard 1 of topic {ready.topic}" in said(discarded)
    assert "redriven 0, failed 0" in said(ready.run("dead-letters", "redrive", "--reason", "nul"))
    for refused in (["redrive"], ["redrive", "--dry-run"], ["discard", "--note", "n"], ["redrive", "--topic", ""]):
        assert "--all" in said(ready.run("dead-letters", *refused), 2)
    assert ready.sql("SELECT * FROM dead_letter") == before
    assert in_kafka(ready) == []


def test_discarded_ones_keep_their_note_and_are_not_redriven(ready: World) -> None:
    letter_id, other = bury(ready, b"{}", reason="nul"), bury(ready, b"{}")
    assert "discarded 1" in said(ready.run("dead-letters", "discard", "--reason", "nul", "--note", "a test's"))
    rows = ready.sql("SELECT id::text, state, note, handled_at IS NOT NULL FROM dead_letter ORDER BY reason DESC")
    assert rows == [(letter_id, "discarded", "a test's", True), (other, "waiting", None, False)]
    again = said(ready.run("dead-letters", "redrive", "--id", letter_id))
    assert f"{letter_id} is discarded already" in again
    assert "redriven 0" in again


def test_two_redrives_at_once_produce_each_once(ready: World) -> None:
    count = 400
    for number in range(count):
        bury(ready, b"%d" % number)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: said(ready.run("dead-letters", "redrive", "--all")), range(2)))
    values = sorted(int(record.value() or b"") for record in in_kafka(ready))
    assert values == list(range(count)), both
    assert set(states(ready).values()) == {"redriven"}


def test_what_another_operator_holds_is_passed_over(tables: World) -> None:
    held, free = bury(tables, b"1"), bury(tables, b"2")
    with connection.database.connection_context(), connection.database.atomic():
        assert len(dead_letters.claim(Selection(ids=[uuid.UUID(held)]), None, 10)) == 1
        assert "redriven 1, failed 0" in said(tables.run("dead-letters", "redrive", "--all"))
    assert states(tables) == {held: "waiting", free: "redriven"}


def test_what_dies_after_the_choice_is_not_part_of_it(tables: World) -> None:
    first = bury(tables, b"1")
    with connection.database.connection_context():
        groups, wanted = chosen(True, {})
        bury(tables, b"2")
        assert [str(letter.id) for letter in dead_letters.page(wanted, 10)] == [first]
    assert [group.count for group in groups] == [1]


def test_nothing_is_marked_before_kafka_acknowledged(tables: World) -> None:
    letter_id = bury(tables, b"{}")
    publisher = KafkaPublisher(tables.settings(kafka_brokers="127.0.0.1:1"))
    with closing(publisher), connection.database.connection_context():
        (batch,) = redrive(publisher, Selection())
    assert batch.outage
    assert states(tables) == {letter_id: "waiting"}


def test_one_that_kafka_rejects_stops_no_other(ready: World) -> None:
    ready.configure_topic(max_message_bytes="200000")
    bury(ready, b"x" * 300_000)
    bury(ready, b"{}")
    bury(ready, None)  # Kafka takes a record without key and value
    done = ready.run("dead-letters", "redrive", "--all")
    assert "1 dead letter(s) could not be redriven and wait" in said(done, 3)
    assert "redriven 2, failed 1" in done.stdout
    assert sorted(states(ready).values()) == ["redriven", "redriven", "waiting"]


def test_many_are_redriven_in_order_with_their_number_now_and_then(ready: World) -> None:
    ready.sql(
        'INSERT INTO dead_letter (id, topic, "partition", "offset", produced_at, dead_at, reason, detail, key, value)'
        " SELECT gen_random_uuid(), %s, 0, n, now(), now() + n * interval '1 ms', 'r', '', 'k', n::text::bytea"
        " FROM generate_series(1, 1250) n",
        ready.topic,
    )
    lines = said(ready.run("dead-letters", "redrive", "--all")).splitlines()
    assert [line for line in lines if line.startswith("redriven")] == [
        "redriven 1000 of 1250",
        "redriven 1250, failed 0",
    ]
    assert [int(record.value() or b"") for record in in_kafka(ready)] == list(range(1, 1251))


def test_ctrl_c_ends_a_redrive_after_a_batch_with_every_one_sent_marked(ready: World) -> None:
    ready.sql(
        'INSERT INTO dead_letter (id, topic, "partition", "offset", produced_at, reason, detail, value)'
        " SELECT gen_random_uuid(), %s, 0, n, now(), 'r', '', '{}' FROM generate_series(1, 30000) n",
        ready.topic,
    )
    redriving = ready.start("dead-letters", "redrive", "--all")
    wait_until(lambda: b"redriven 1000 of 30000" in redriving.log.read_bytes(), "it is on its way")
    redriving.process.send_signal(signal.SIGINT)
    assert redriving.process.wait(30) == 0
    marked = list(states(ready).values()).count("redriven")
    assert 1000 <= marked < 30000
    assert len(in_kafka(ready)) == marked


def test_what_is_wrong_or_away_is_one_sentence(world: World) -> None:
    assert "run init" in said(world.run("dead-letters", "list"), 5)
    world.init()
    unknown = str(uuid.uuid4())
    for action in (["show", unknown], ["redrive", "--id", unknown], ["discard", "--note", "n", "--id", unknown]):
        assert f"there is no dead letter {unknown}" in said(world.run("dead-letters", *action), 2)
    bury(world, b"{}", topic="gone")
    no_topic = said(world.run("dead-letters", "redrive", "--all"), 5)
    assert "Kafka has no topic gone" in no_topic
    away = said(world.run("dead-letters", "redrive", "--all", kafka_brokers="127.0.0.1:1"), 3)
    assert "KAFKA_BROKERS" in away
    no_database = world.run("dead-letters", "list", database_url="postgresql://backend@127.0.0.1:1/backend")
    assert "DATABASE_URL" in said(no_database, 3)
    assert all(len(text.splitlines()) == 1 for text in (no_topic, away, no_database.stderr))
