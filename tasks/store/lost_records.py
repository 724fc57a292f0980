"""Every query on `lost_records`: what Kafka deleted before it was read."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from tasks.store import spans
from tasks.store.connection import local_commit
from tasks.store.models import LostRecords
from tasks.store.spans import Source, Span


class Loss(NamedTuple):
    """Offsets of a partition, the first and the last, that were deleted before a group read them."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    noticed_at: datetime


def add(group: str, loss: Loss, topic_id: str) -> None:
    """Record a loss, and that nothing is missed there any more. The same call again changes nothing.

    `topic_id` is the topic's. Waits for no standby: a loss without a span is found again.
    """
    with local_commit():
        LostRecords.insert(**loss._asdict(), group=group).on_conflict_ignore().execute()
        spans.add(Span(Source(loss.topic, topic_id, loss.partition), loss.first_offset, loss.last_offset + 1))


def waiting(topic: str | None = None) -> Sequence[Loss]:
    """The losses that nobody has acknowledged, of one topic or all, in order."""
    query = LostRecords.select().where(LostRecords.acknowledged_at.is_null())
    if topic is not None:
        query = query.where(LostRecords.topic == topic)
    rows = query.order_by(LostRecords.topic, LostRecords.partition, LostRecords.first_offset)
    return [Loss(row.topic, row.partition, row.first_offset, row.last_offset, row.noticed_at) for row in rows]


def acknowledge(topic: str | None, note: str) -> int:
    """Acknowledge the losses of one topic or all; returns how many there were."""
    change = LostRecords.update(acknowledged_at=datetime.now(UTC), note=note)
    waits = LostRecords.acknowledged_at.is_null()
    count: int = change.where(waits if topic is None else waits & (LostRecords.topic == topic)).execute()
    return count
