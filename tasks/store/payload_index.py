"""The optional index of payloads, for `GET /messages?contains` (docs/decisions/0024-optional-payload-index.md)."""

from tasks.errors import Unavailable
from tasks.store.connection import database

# Not a migration: users decide whether it is worth its cost.
_MAKE_INDEX = "CREATE INDEX CONCURRENTLY message_payload ON message USING gin (payload jsonb_path_ops)"
_DROP_INDEX = "DROP INDEX CONCURRENTLY IF EXISTS message_payload"
# An index whose build was interrupted exists, costs as much, and serves no query.
_HAS_INDEX = "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('message_payload') AND indisvalid)"
# Another lock: waiting for the first one takes a snapshot, for which the build of an index waits.
_INDEX_LOCK = 0x6D657373_61676573 + 1


def exists() -> bool:
    """Whether the index for `contains` exists. Raises peewee.DatabaseError."""
    return bool(database.execute_sql(_HAS_INDEX).fetchone()[0])


def switch(enabled: bool) -> None:
    """Create that index, or drop it, while others write. Raises Unavailable while another process does so."""
    if not database.execute_sql("SELECT pg_try_advisory_lock(%s)", (_INDEX_LOCK,)).fetchone()[0]:
        raise Unavailable("another process creates the index of payloads")
    try:
        if exists() != enabled:
            database.execute_sql(_DROP_INDEX)
            if enabled:
                database.execute_sql(_MAKE_INDEX)
    finally:
        database.execute_sql("SELECT pg_advisory_unlock(%s)", (_INDEX_LOCK,))
