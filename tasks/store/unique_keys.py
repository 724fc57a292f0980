"""The keys on which "stored once" depends, found by their columns, whatever the name of the index."""

from collections.abc import Sequence

import peewee

from tasks.errors import NotReady
from tasks.store.connection import database

_KEYS: dict[str, tuple[str, ...]] = {
    "claim": ("id", "topic"),
    "dead_letter": ("id",),
    "idempotency_key": ("key",),
    "bridge": ("member",),
    "stopped_partition": ("topic", "partition", "group"),
    "lost_records": ("topic", "partition", "group", "first_offset", "noticed_at"),
    "source": ("topic", "topic_id", "partition"),
    "paused_task": ("name",),
    "task_worker": ("name",),
}
_LOCK_SECONDS = 5  # a long reader, such as pg_dump, blocks us, and we block all writers
# The columns of each unique index that PostgreSQL enforces for every row and that ON CONFLICT can use.
_UNIQUE = """
    SELECT name, (
        SELECT array_agg(attname::text) FROM pg_attribute
        WHERE attrelid = indrelid AND attnum = ANY ((indkey::int2[])[0:indnkeyatts - 1])
    )
    FROM unnest(%s) AS name JOIN pg_index ON indrelid = to_regclass(name)
    WHERE indisunique AND indisvalid AND indisready AND indimmediate AND indpred IS NULL AND indexprs IS NULL
"""
_NO_OVERLAPS = "EXCLUDE USING gist (span WITH &&)"
_HAS_NO_OVERLAPS = "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass('span') AND contype = 'x')"
_MERGE = """
    WITH merged AS (DELETE FROM span RETURNING span) INSERT INTO span SELECT unnest(range_agg(span)) FROM merged
"""
_PRIMARY = "SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(%s) AND contype = 'p'"


def describe(table: str) -> str:
    """The key of a table for messages to people, such as `message (id)`."""
    return f"{table} ({', '.join(_KEYS.get(table, ['no overlaps']))})"


def missing() -> list[str]:
    """The tables without a valid unique index on exactly their key columns; `span` if spans may overlap.

    Raises peewee.DatabaseError.
    """
    rows = database.execute_sql(_UNIQUE, (list(_KEYS),)).fetchall()
    unique = {(table, frozenset(columns)) for table, columns in rows}
    without = [table for table, columns in _KEYS.items() if (table, frozenset(columns)) not in unique]
    return without if database.execute_sql(_HAS_NO_OVERLAPS).fetchone()[0] else [*without, "span"]


def restore() -> list[str]:
    """Rebuild missing or invalid keys, each in its own transaction; returns their tables.

    A table is locked meanwhile. Raises NotReady if a key value is stored more than once; and
    peewee.DatabaseError, also if the table is in use for longer than 5 s.
    """
    restored, repeated = [], []
    for table in missing():
        try:
            with database.atomic():
                database.execute_sql(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
                database.execute_sql(f"LOCK TABLE {table}")
                if table in missing():  # another process may have built it
                    _make(table)
                    restored.append(table)
        except peewee.IntegrityError:
            repeated.append(f"{_count_repeated(table)} key value(s) of {describe(table)} are stored more than once")
    if repeated:
        remedy = 'delete the surplus rows (docs/operations.md, "A lost key") and run init again'
        raise NotReady(f"{'; '.join(repeated)}, so the unique key cannot be created: {remedy}")
    return restored


def _make(table: str) -> None:
    if table == "span":
        database.execute_sql(_MERGE)
        database.execute_sql(f"ALTER TABLE span ADD {_NO_OVERLAPS}")
        return
    # In place of a primary key that is invalid or has other columns.
    drop = [f"DROP CONSTRAINT {_quoted(name)}, " for name in database.execute_sql(_PRIMARY, (table,)).fetchall()]
    database.execute_sql(f"ALTER TABLE {table} {''.join(drop)}ADD PRIMARY KEY ({_quoted(_KEYS[table])})")


def _count_repeated(table: str) -> int:
    groups = f"SELECT FROM {table} GROUP BY {_quoted(_KEYS[table])} HAVING count(*) > 1"
    return int(database.execute_sql(f"SELECT count(*) FROM ({groups}) AS repeated").fetchone()[0])


def _quoted(names: Sequence[str]) -> str:
    return ", ".join('"' + name.replace('"', '""') + '"' for name in names)
