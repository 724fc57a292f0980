"""The optional index of payloads, for `GET /messages?contains` (docs/decisions/0024-optional-payload-index.md)."""

from tasks.errors import Unavailable
from tasks.store import leaves
from tasks.store.connection import briefly, database

# Not a migration: users decide whether it is worth its cost. Leaf by leaf, because no index of all can be made while
# others write; leaves that are made later have theirs from the start.
_OF_ALL = "CREATE INDEX message_payload ON ONLY message USING gin (payload jsonb_path_ops)"
_OF_LEAF = "CREATE INDEX CONCURRENTLY {leaf}_payload ON {leaf} USING gin (payload jsonb_path_ops)"
_ATTACH = "ALTER INDEX message_payload ATTACH PARTITION {leaf}_payload"
_DROP_OF_ALL = "DROP INDEX IF EXISTS message_payload"
_DROP_OF_LEAF = "DROP INDEX CONCURRENTLY IF EXISTS {leaf}_payload"
# An index whose build was interrupted exists, costs as much, and serves no query.
_HAS_INDEX = "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('message_payload') AND indisvalid)"
_HAS_PART = "SELECT to_regclass('message_payload') IS NOT NULL"
# Another lock: waiting for the first one takes a snapshot, for which the build of an index waits.
_INDEX_LOCK = 0x6D657373_61676573 + 1


def exists() -> bool:
    """Whether the index for `contains` exists. Raises peewee.DatabaseError."""
    return bool(database.execute_sql(_HAS_INDEX).fetchone()[0])


def differs(enabled: bool) -> bool:
    """Whether it must be made, or made again, or dropped. Raises peewee.DatabaseError."""
    return not exists() if enabled else bool(database.execute_sql(_HAS_PART).fetchone()[0])


def switch(enabled: bool) -> None:
    """Make that index, or drop it, while others write.

    Raises Unavailable while another process does so, or while a transaction holds `message` for long.
    """
    if not database.execute_sql("SELECT pg_try_advisory_lock(%s)", (_INDEX_LOCK,)).fetchone()[0]:
        raise Unavailable("another process creates the index of payloads")
    try:
        if differs(enabled):
            _briefly(_DROP_OF_ALL)
            if enabled:
                _make()
    finally:
        database.execute_sql("SELECT pg_advisory_unlock(%s)", (_INDEX_LOCK,))


def _make() -> None:
    _briefly(_OF_ALL)
    for leaf in leaves.existing():
        database.execute_sql(_DROP_OF_LEAF.format(leaf=leaf.name))
        database.execute_sql(_OF_LEAF.format(leaf=leaf.name))
        _briefly(_ATTACH.format(leaf=leaf.name))


def _briefly(statement: str) -> None:
    if not briefly(lambda: database.execute_sql(statement)):
        raise Unavailable("a transaction holds the table message for too long to change its indexes")
