"""`lost-records`: shows what Kafka deleted before it was read, and acknowledges that somebody knows."""

from collections.abc import Mapping

from tasks.config.settings import Settings
from tasks.store import connection, lost_records, migrations


def run(settings: Settings, flags: Mapping[str, str], topic: str | None, acknowledge: str | None) -> None:
    """Print the losses that nobody has acknowledged, or acknowledge them with a note.

    Raises NotReady, Unavailable, AccessDenied.
    """
    connection.configure(settings.database_url, "lost-records", connections=1)
    with connection.session():
        migrations.require_latest()
        if acknowledge is not None:
            print(f"acknowledged {lost_records.acknowledge(topic, acknowledge)}")
            return
        losses = lost_records.waiting(topic)
    for loss in losses:
        offsets = f"offsets {loss.first_offset} to {loss.last_offset} ({loss.last_offset - loss.first_offset + 1})"
        print(f"{loss.noticed_at:%Y-%m-%d %H:%M:%S}  {loss.topic}/{loss.partition}  {offsets}")
    if not losses:
        print("no records were lost, or all losses are acknowledged")
