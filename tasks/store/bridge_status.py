"""Every query on `bridge` and `stopped_partition`: the status of bridges, and which partitions are quarantined.

PostgreSQL is the only service that bridges, API and operators can all reach.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from tasks.store.models import Bridge, StoppedPartition

REPORT_SECONDS = 2.0  # between two reports of a bridge
_SILENT = timedelta(seconds=30)  # a bridge without a report for this long is gone


def report(member: str, status: Mapping[str, Any]) -> None:
    """Write the status of a bridge, and delete that of bridges that are gone."""
    now = datetime.now(UTC)
    text = orjson.dumps(status).decode()
    Bridge.insert(member=member, reported_at=now, status=text).on_conflict(
        conflict_target=[Bridge.member], update={Bridge.reported_at: now, Bridge.status: text}
    ).execute()
    Bridge.delete().where(Bridge.reported_at < now - _SILENT).execute()


def leave(member: str) -> None:
    """Delete the status of a bridge that stops."""
    Bridge.delete().where(Bridge.member == member).execute()


def reports() -> list[dict[str, Any]]:
    """The last status of each running bridge."""
    rows = Bridge.select().where(Bridge.reported_at >= datetime.now(UTC) - _SILENT).order_by(Bridge.member)
    return [{"bridge": row.member, **orjson.loads(row.status)} for row in rows]


def quarantine(topic: str, partition: int, group: str, reason: str, limit_percent: int) -> None:
    """Record that a group does not read a partition, until it is released."""
    StoppedPartition.insert(
        topic=topic,
        partition=partition,
        group=group,
        reason=reason,
        limit_percent=limit_percent,
        stopped_at=datetime.now(UTC),
    ).on_conflict_ignore().execute()


def quarantined(group: str | None = None) -> Sequence[StoppedPartition]:
    """The quarantined partitions of one group, or of all groups."""
    query = StoppedPartition.select().order_by(StoppedPartition.topic, StoppedPartition.partition)
    return list(query if group is None else query.where(StoppedPartition.group == group))


def release_below(group: str, limit_percent: int) -> Sequence[StoppedPartition]:
    """Release the partitions of a group that were quarantined under a lower limit; returns them."""
    lower = (StoppedPartition.group == group) & (StoppedPartition.limit_percent < limit_percent)
    return list(StoppedPartition.delete().where(lower).returning(StoppedPartition).execute())


def release(topic: str, partition: int | None = None) -> int:
    """Release a partition, or all of a topic; returns how many were quarantined."""
    query = StoppedPartition.delete().where(StoppedPartition.topic == topic)
    if partition is not None:
        query = query.where(StoppedPartition.partition == partition)
    count: int = query.execute()
    return count
