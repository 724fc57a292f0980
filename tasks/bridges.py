"""Every query on `bridge` and `stopped_partition`: what bridges say of themselves, and which partitions are stopped.

PostgreSQL is the one place that bridges, API and operators all reach.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from tasks.models import Bridge, StoppedPartition

REPORT_SECONDS = 2.0  # between two reports of a bridge
_SILENT = timedelta(seconds=30)  # a bridge that said nothing for so long is gone


def report(member: str, status: Mapping[str, Any]) -> None:
    """Keep what a bridge says of itself, and forget those that are gone."""
    now = datetime.now(UTC)
    text = orjson.dumps(status).decode()
    Bridge.insert(member=member, reported_at=now, status=text).on_conflict(
        conflict_target=[Bridge.member], update={Bridge.reported_at: now, Bridge.status: text}
    ).execute()
    Bridge.delete().where(Bridge.reported_at < now - _SILENT).execute()


def leave(member: str) -> None:
    """Forget a bridge that ends."""
    Bridge.delete().where(Bridge.member == member).execute()


def reports() -> list[dict[str, Any]]:
    """What each living bridge said last."""
    rows = Bridge.select().where(Bridge.reported_at >= datetime.now(UTC) - _SILENT).order_by(Bridge.member)
    return [{"bridge": row.member, **orjson.loads(row.status)} for row in rows]


def stop(topic: str, partition: int, group: str, reason: str, limit_percent: int) -> None:
    """Note that a group does not read a partition any more, until it is released or allowed more."""
    StoppedPartition.insert(
        topic=topic,
        partition=partition,
        group=group,
        reason=reason,
        limit_percent=limit_percent,
        stopped_at=datetime.now(UTC),
    ).on_conflict_ignore().execute()


def stopped(group: str | None = None) -> Sequence[StoppedPartition]:
    """The partitions that are stopped, of one group or of all."""
    query = StoppedPartition.select().order_by(StoppedPartition.topic, StoppedPartition.partition)
    return list(query if group is None else query.where(StoppedPartition.group == group))


def allow(group: str, limit_percent: int) -> Sequence[StoppedPartition]:
    """Let a group's bridges read again what was stopped by a limit lower than this; which partitions those are."""
    lower = (StoppedPartition.group == group) & (StoppedPartition.limit_percent < limit_percent)
    return list(StoppedPartition.delete().where(lower).returning(StoppedPartition).execute())


def release(topic: str, partition: int | None = None) -> int:
    """Let bridges read a partition again, or all of a topic; how many were stopped."""
    query = StoppedPartition.delete().where(StoppedPartition.topic == topic)
    if partition is not None:
        query = query.where(StoppedPartition.partition == partition)
    count: int = query.execute()
    return count
