"""Deletes from `claim`: the ids that came with records, kept as long as their messages."""

from collections.abc import Iterator
from datetime import datetime

from tasks.store.rows import delete_until_none

_DELETED_AT_ONCE = 5_000
_DELETE = """
    DELETE FROM claim WHERE (id, topic) IN (
        SELECT id, topic FROM claim WHERE stored_at < %s LIMIT %s FOR UPDATE SKIP LOCKED
    )
"""


def delete_before(moment: datetime) -> Iterator[int]:
    """Delete the claims of messages stored before `moment`; yields the count of each short transaction."""
    return delete_until_none(_DELETE, moment, _DELETED_AT_ONCE)
