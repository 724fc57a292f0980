"""Contestant (b): one process, no Celery, no Redis: poll, decode, COPY, commit the offset, in a loop."""

import sys

from kafka import ConsumerRebalanceListener

from bridge import clients
from tasks import database, settings, store, telemetry
from tasks.envelope import Record
from tasks.persist import decode_all


def main(count: int) -> None:
    """Store `count` messages, then end."""
    loaded = settings.load()
    telemetry.configure(loaded, "plain")
    database.configure(loaded.database_url, "plain", connections=1)
    consumer = clients.new_consumer(loaded, _Announce())
    left = count
    while left > 0:
        for partition, polled in consumer.poll(timeout_ms=100, max_records=loaded.batch_records).items():
            records = [Record(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, r.headers) for r in polled]
            messages, dead = decode_all(records)
            with database.database.connection_context():
                store.store_batch(partition.topic, partition.partition, records, messages, dead)
            consumer.commit(clients.offsets({partition: records[-1].offset + 1}))
            left -= len(records)
            telemetry.emit("batch.stored", records=len(records))


class _Announce(ConsumerRebalanceListener):  # type: ignore[misc]
    def on_partitions_assigned(self, assigned: object) -> None:
        telemetry.emit("partitions.assigned")

    def on_partitions_revoked(self, revoked: object) -> None:
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]))
