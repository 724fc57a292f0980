"""Contestant (a): the usual glue. One Celery task and one Peewee INSERT for each message, and the function of TASKS."""

import sys
from datetime import UTC, datetime

from celery import Celery
from celery.signals import setup_logging

from bench.plain import Announcer
from bench.work import Work
from bridge.kafka import clients
from bridge.kafka.types import Committed
from tasks.config import settings
from tasks.message import Record, decode
from tasks.observability import events
from tasks.store import connection
from tasks.store.models import Message

loaded = settings.load()
work = Work(loaded)
app = Celery("naive", broker=loaded.redis_url)
app.conf.update(task_ignore_result=True, task_default_queue="naive")


@app.task(name="naive.store")  # type: ignore[untyped-decorator]
def store(topic: str, partition: int, offset: int, timestamp: int, key: str | None, value: str) -> None:
    """Insert one message."""
    message = decode(Record(topic, partition, offset, timestamp, key.encode() if key else None, value.encode(), ()))
    now = datetime.now(UTC)
    with connection.database.connection_context():
        work.run(value)
        Message.insert(
            id=message.id.hex(),
            topic=topic,
            partition=partition,
            offset=offset,
            produced_at=datetime.fromtimestamp(timestamp / 1000, UTC),
            stored_at=now,
            type=message.type,
            key=message.key,
            payload=value,
        ).on_conflict_ignore().execute()
    events.emit("batch.stored", records=1)


def main(role: str) -> None:
    """Run the bridge (`bridge COUNT`) or the worker (`worker`)."""
    events.configure(loaded, role)
    if role == "worker":
        setup_logging.connect(lambda **_: events.configure(loaded, role), weak=False)
        connection.configure(loaded.database_url, role, connections=1)
        app.worker_main(
            ["--quiet", "worker", "--concurrency", str(loaded.workers), "-Q", "naive", "--loglevel", "WARNING"]
        )
        return
    consumer = clients.new_consumer(loaded)
    consumer.subscribe(loaded.kafka_topics, Announcer())
    left = int(sys.argv[2])
    while left > 0:
        for partition, records in consumer.poll(timeout_ms=100).items():
            for record in records:
                key = record.key.decode() if record.key else None
                store.delay(*partition, record.offset, record.timestamp, key, (record.value or b"").decode())
            consumer.commit({partition: Committed(records[-1].offset + 1, "")})
            left -= len(records)


if __name__ == "__main__":
    main(sys.argv[1])
