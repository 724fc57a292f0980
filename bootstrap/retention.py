"""`retention`: deletes what is older than wanted, in small transactions that no writer waits for; run once a day."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from tasks import database, dead_letters, idempotency, schema, store, telemetry
from tasks.settings import Settings


def run(settings: Settings, flags: Mapping[str, str], dry_run: bool) -> None:
    """Delete old messages and handled dead letters, or count them. Ended halfway, it goes on the next time.

    Raises ConfigurationError, NotReady, Unavailable, AccessDenied.
    """
    database.configure(settings.database_url, "retention", connections=1)
    messages = letters = 0
    with database.session():
        schema.require_latest()
        if not dry_run:
            sum(idempotency.forget())
        if settings.retention_days:
            oldest = _days_ago(settings.retention_days)
            messages = store.count_before(oldest) if dry_run else sum(store.delete_before(oldest))
        if settings.dead_letter_retention_days:
            oldest = _days_ago(settings.dead_letter_retention_days)
            letters = (
                dead_letters.count_handled_before(oldest)
                if dry_run
                else sum(dead_letters.delete_handled_before(oldest))
            )
    result = "only counted" if dry_run else "deleted"
    telemetry.emit("retention.done", messages=messages, dead_letters=letters, result=result)


def _days_ago(days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)
