"""Applies the migrations of the tables in order, each exactly once, by one process at a time."""

import peewee

from tasks.errors import NotReady
from tasks.store import unique_keys
from tasks.store.connection import NO_TABLE, database, sqlstate
from tasks.store.schema import MIGRATIONS, Migration

_LOCK = 0x6D657373_61676573  # advisory lock key: "messages" in ASCII


_YET_TO_COME = "xact >= pg_snapshot_xmax(pg_current_snapshot())"
VERSION = MIGRATIONS[-1].version
_FIRST = MIGRATIONS[0].version  # older tables were never part of a release


def version() -> int:
    """The version of the tables; 0 if there are none. Raises peewee.DatabaseError."""
    try:
        return int(database.execute_sql("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()[0])
    except peewee.ProgrammingError as error:
        if sqlstate(error) != NO_TABLE:
            raise
        return 0


def require_latest() -> None:
    """Raises NotReady if the tables are missing, older or newer than this program; and peewee.DatabaseError."""
    reason = _other_version(version())
    if reason is not None:
        raise NotReady(reason)


def require_upgradable() -> None:
    """Raises NotReady if the tables are newer than this program, or too old to upgrade; and peewee.DatabaseError."""
    if (there := version()) > VERSION or 0 < there < _FIRST:
        raise NotReady(_other_version(there))


def mismatch() -> str | None:
    """Why the tables do not match this program, as a sentence; None if they match. Raises peewee.DatabaseError."""
    reason = _other_version(version())
    if reason is not None:
        return reason
    missing = ", ".join(map(unique_keys.describe, unique_keys.missing()))
    return f"the unique key of {missing} is missing, so rows can be stored twice; run init" if missing else None


def _other_version(there: int) -> str | None:
    if there > VERSION:
        return f"the tables are of version {there}, newer than this program's {VERSION}; use the matching version"
    if 0 < there < _FIRST:
        return f"the tables are of version {there}, which no release had and none can upgrade; use an empty database"
    if there < VERSION:
        return f"the tables are {f'of version {there}, not {VERSION}' if there else 'missing'}; run init"
    return None


def restored() -> bool:
    """Whether messages have numbers of future transactions, as after restoring a dump of another server."""
    return bool(database.execute_sql(f"SELECT EXISTS (SELECT FROM message WHERE {_YET_TO_COME})").fetchone()[0])


def renumber() -> None:
    """Give those messages a number before all others, so that the stream treats them as old."""
    database.execute_sql(f"UPDATE message SET xact = '0' WHERE {_YET_TO_COME}")
    # Tasks count as older than those, so that no replay repeats what they have run.
    database.execute_sql(f"UPDATE task SET xact = '0' WHERE {_YET_TO_COME}")
    database.execute_sql(f"UPDATE task SET retired_xact = NULL WHERE retired_{_YET_TO_COME}")


def upgrade() -> list[Migration]:
    """Apply the missing migrations, all or none; concurrent processes take turns. Returns those applied.

    Raises NotReady if the tables are newer than this program, or too old; and peewee.DatabaseError.
    """
    with database.atomic():
        database.execute_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        database.execute_sql(
            "CREATE TABLE IF NOT EXISTS schema_version"
            " (version integer PRIMARY KEY, summary text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        require_upgradable()
        missing = [step for step in MIGRATIONS if step.version > version()]
        for step in missing:
            database.execute_sql(step.sql)
            database.execute_sql(
                "INSERT INTO schema_version (version, summary) VALUES (%s, %s)", (step.version, step.summary)
            )
        return missing
