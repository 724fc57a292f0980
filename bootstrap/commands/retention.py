"""`retention`: deletes old messages and dead letters, in small transactions for which no writer waits."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from tasks.config.settings import Settings
from tasks.observability import events
from tasks.store import batches, connection, dead_letters, idempotency, migrations, statistics


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
            messages = batches.count_before(oldest) if dry_run else sum(batches.delete_before(oldest))
            if not dry_run:
                statistics.forget_before(oldest)
        if settings.dead_letter_retention_days:
            oldest = _days_ago(settings.dead_letter_retention_days)
            letters = (
                dead_letters.count_handled_before(oldest)
                if dry_run
                else sum(dead_letters.delete_handled_before(oldest))
            )
    result = "only counted" if dry_run else "deleted"
    events.emit("retention.done", messages=messages, dead_letters=letters, result=result)


def _days_ago(days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)
