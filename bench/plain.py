"""Contestant (b): one process without Celery and Redis: poll, decode, COPY, commit the offset, in a loop."""

import sys

from bridge.kafka import clients
from bridge.kafka.types import Committed, TopicPartition
from tasks.config import settings
from tasks.message import Record
from tasks.observability import events
from tasks.store import batches, connection, spans
from tasks.store.spans import Source, Span
from tasks.worker.persist import decode_all


def main(count: int) -> None:
    """Store `count` messages, then exit."""
    loaded = settings.load()
    events.configure(loaded, "plain")
    connection.configure(loaded.database_url, "plain", connections=1)
    consumer = clients.new_consumer(loaded)
    consumer.subscribe(loaded.kafka_topics, Announcer())
    begun: set[TopicPartition] = set()
    left = count
    while left > 0:
        for partition, polled in consumer.poll(timeout_ms=100, max_records=loaded.batch_records).items():
            records = [Record(*partition, r.offset, r.timestamp, r.key, r.value, r.headers) for r in polled]
            messages, dead = decode_all(records)
            with connection.database.connection_context():
                source = Source(partition.topic, "", partition.partition)
                if partition not in begun:
                    spans.stored_until({source: 0})
                    begun.add(partition)
                span = Span(source, records[0].offset, records[-1].offset + 1)
                batches.store_batch(span, records, messages, dead)
            consumer.commit({partition: Committed(records[-1].offset + 1, "")})
            left -= len(records)
            events.emit("batch.stored", records=len(records))


class Announcer:
    """Logs the assignment, which the benchmark waits for."""

    def on_partitions_assigned(self, assigned: object) -> None:
        """Called by the client in a poll."""
        events.emit("partitions.assigned")

    def on_partitions_revoked(self, revoked: object) -> None:
        """Called by the client in a poll."""


if __name__ == "__main__":
    main(int(sys.argv[1]))
