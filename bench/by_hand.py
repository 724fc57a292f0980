"""Contestant (d): what a good engineer writes by hand: one process, poll, COPY into a staging table, INSERT, commit.

Each message is stored once, by the id in its payload, in a table of the same columns and indexes as ours, which is
not partitioned. It has no dead letters, retention, counts, metrics or second worker, and misreads recreated topics.
"""

import csv
import io
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

import orjson
import psycopg2
from confluent_kafka import Consumer, Message

from tasks.config import settings
from tasks.observability import events

_TABLES = """
    CREATE TABLE IF NOT EXISTS by_hand (LIKE message INCLUDING DEFAULTS, PRIMARY KEY (id, topic));
    CREATE INDEX IF NOT EXISTS by_hand_stored_at ON by_hand (stored_at, id);
    CREATE INDEX IF NOT EXISTS by_hand_key ON by_hand (hashtextextended(key, 0)) WHERE key IS NOT NULL;
    CREATE INDEX IF NOT EXISTS by_hand_xact ON by_hand (xact, id);
    TRUNCATE by_hand;
    CREATE TEMPORARY TABLE staged (LIKE message INCLUDING DEFAULTS) ON COMMIT DELETE ROWS;
"""
_COLUMNS = 'id, topic, "partition", "offset", produced_at, type, key, payload'
_COPY = f"COPY staged ({_COLUMNS}) FROM STDIN (FORMAT csv)"
_MOVE = "INSERT INTO by_hand SELECT * FROM staged ON CONFLICT DO NOTHING"
_BATCH = 2000


def main(count: int) -> None:
    """Store `count` messages, then exit."""
    loaded = settings.load()
    events.configure(loaded, "by-hand")
    database = psycopg2.connect(loaded.database_url)
    with database, database.cursor() as cursor:
        cursor.execute(_TABLES)
    consumer = Consumer(
        {
            "bootstrap.servers": ",".join(loaded.kafka_brokers),
            "group.id": loaded.kafka_group_id,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe(list(loaded.kafka_topics), on_assign=lambda *_: events.emit("partitions.assigned"))
    left = count
    while left > 0:
        messages = [message for message in consumer.consume(_BATCH, 0.1) if not message.error()]
        if not messages:
            continue
        with database, database.cursor() as cursor:
            cursor.copy_expert(_COPY, _csv(messages))
            cursor.execute(_MOVE)
        consumer.commit(asynchronous=False)
        left -= len(messages)
        events.emit("batch.stored", records=len(messages))


def _csv(messages: Iterable[Message]) -> io.StringIO:
    rows = io.StringIO()
    writer = csv.writer(rows)
    for message in messages:
        text = message.value().decode()
        body = orjson.loads(text)
        produced = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
        place = (message.topic(), message.partition(), message.offset())
        writer.writerow((body["id"], *place, produced, body["type"], message.key().decode(), text))
    rows.seek(0)
    return rows


if __name__ == "__main__":
    main(int(sys.argv[1]))
