"""Contestant (a): the usual glue. One Celery task and one Peewee INSERT for each message."""

import sys
from datetime import UTC, datetime

from celery import Celery
from celery.signals import setup_logging

from bench.plain import _Announce
from bridge import clients
from tasks import database, envelope, settings, telemetry
from tasks.envelope import Record
from tasks.models import Message

loaded = settings.load()
app = Celery("naive", broker=loaded.redis_url)
app.conf.update(task_ignore_result=True, task_default_queue="naive")


@app.task(name="naive.store")  # type: ignore[untyped-decorator]
def store(topic: str, partition: int, offset: int, timestamp: int, key: str | None, value: str) -> None:
    """Insert one message."""
    message = envelope.decode(
        Record(topic, partition, offset, timestamp, key.encode() if key else None, value.encode(), ())
    )
    now = datetime.now(UTC)
    with database.database.connection_context():
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
    telemetry.emit("batch.stored", records=1)


def main(role: str) -> None:
    """Be the bridge (`bridge COUNT`) or the worker (`worker`)."""
    telemetry.configure(loaded, role)
    if role == "worker":
        setup_logging.connect(lambda **_: telemetry.configure(loaded, role), weak=False)
        database.configure(loaded.database_url, role, connections=1)
        app.worker_main(
            ["--quiet", "worker", "--concurrency", str(loaded.workers), "-Q", "naive", "--loglevel", "WARNING"]
        )
        return
    consumer = clients.new_consumer(loaded, _Announce())
    left = int(sys.argv[2])
    while left > 0:
        for records in consumer.poll(timeout_ms=100).values():
            for record in records:
                key = record.key.decode() if record.key else None
                store.delay(record.topic, record.partition, record.offset, record.timestamp, key, record.value.decode())
            left -= len(records)
        consumer.commit()


if __name__ == "__main__":
    main(sys.argv[1])
