"""Settings of PostgreSQL's server that break the promise, or that cost much: hints of `init --check`."""

from tasks.store.connection import database

_SETTINGS = """
    SELECT name, current_setting(name), pg_size_bytes(current_setting(name))
    FROM pg_settings WHERE name IN ('shared_buffers', 'max_wal_size')
"""
_SAFE = "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off' ORDER BY name"
_MIB = 1 << 20
# PostgreSQL's defaults are for the smallest machines.
_LEAST = {
    "shared_buffers": (256 * _MIB, "a quarter of the server's memory keeps the indexes of a day in it"),
    "max_wal_size": (2048 * _MIB, "with less, each checkpoint writes whole pages of the indexes to the log again"),
}


def hints() -> list[str]:
    """A sentence for each setting that should be another. Raises peewee.DatabaseError."""
    unsafe = [
        f"PostgreSQL runs with {name}=off: a crash of its machine may corrupt what is stored"
        for (name,) in database.execute_sql(_SAFE).fetchall()
    ]
    small = [
        f"PostgreSQL's {name} is {shown}: {_LEAST[name][1]}"
        for name, shown, size in sorted(database.execute_sql(_SETTINGS).fetchall())
        if size < _LEAST[name][0]
    ]
    return unsafe + small
