"""`retention`: drops the leaves of old messages, deletes old ids and dead letters, so that no writer waits."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from tasks.config.settings import Settings
from tasks.observability import events
from tasks.store import (
    chunks,
    claims,
    connection,
    dead_letters,
    failed_runs,
    idempotency,
    leaves,
    migrations,
    runs,
    statistics,
)


def run(settings: Settings, flags: Mapping[str, str], dry_run: bool) -> None:
    """Delete old messages and handled dead letters, or count them. If interrupted, the next run continues.

    Raises ConfigurationError, NotReady, Unavailable, AccessDenied.
    """
    connection.configure(settings.database_url, "retention", connections=1)
    messages = letters = 0
    with connection.session():
        migrations.require_latest()
        if not dry_run:
            sum(idempotency.forget())
        if settings.retention_days:
            oldest = _days_ago(settings.retention_days)
            messages = _delete_messages(oldest, dry_run)
        if settings.dedupe_days and not dry_run:
            sum(claims.delete_before(_days_ago(settings.dedupe_days)))
        if settings.run_retention_days and not dry_run:
            sum(failed_runs.delete_ended_before(_days_ago(settings.run_retention_days)))
        if settings.dead_letter_retention_days:
            oldest = _days_ago(settings.dead_letter_retention_days)
            letters = (
                dead_letters.count_handled_before(oldest)
                if dry_run
                else sum(dead_letters.delete_handled_before(oldest))
            )
    result = "only counted" if dry_run else "deleted"
    events.emit("retention.done", messages=messages, dead_letters=letters, result=result)


def _delete_messages(before: datetime, dry_run: bool) -> int:
    """Drop the leaves whose messages are all older, and what is known of those; returns how many there are or were."""
    old, messages = leaves.ended_before(before), 0
    waiting = min(filter(None, (chunks.oldest(), runs.oldest())), default=None)
    needed = [leaf for leaf in old if waiting is not None and waiting < leaf.end]
    if needed:  # the users' tasks have still to run for messages in them
        events.emit("retention.postponed", leaf=needed[0].name, waiting_since=waiting)
        old = [leaf for leaf in old if leaf not in needed]
    if dry_run:
        return statistics.count_before(old[-1].end) if old else 0
    for leaf in old:
        count = statistics.count_before(leaf.end)
        if not leaves.drop(leaf):
            events.emit("retention.postponed", leaf=leaf.name, messages=count)
            break
        sum(claims.delete_before(leaf.end))
        statistics.forget_before(leaf.end)
        messages += count
    return messages


def _days_ago(days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)
