"""What operators see and do with the runs of the users' tasks that have a row: failed ones above all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.store.connection import database
from tasks.store.rows import delete_until_none

_PLACE = ("topic", "partition", "offset", "message_id")
COLUMNS = ("id", "task", "state", "attempts", *_PLACE, "changed_at", "due_at", "error")
_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
_PAGE = f"SELECT {_NAMES} FROM run WHERE {{where}} ORDER BY id DESC LIMIT %s"
_ONE = f"SELECT {_NAMES}, note, traceback FROM run WHERE id = %s"
_COUNT = "SELECT count(*) FROM run WHERE {where}"
_RETRY = """
    UPDATE run SET state = 'retrying', due_at = now(), changed_at = now(), kills = 0 WHERE id IN (
        SELECT id FROM run WHERE {where} LIMIT %s FOR UPDATE SKIP LOCKED
    )
"""
_DISCARD = """
    UPDATE run SET state = 'discarded', changed_at = now(), note = %s WHERE id IN (
        SELECT id FROM run WHERE {where} LIMIT %s FOR UPDATE SKIP LOCKED
    )
"""
_DELETE = """
    DELETE FROM run WHERE id IN (
        SELECT id FROM run WHERE state IN ('done', 'expired', 'discarded') AND changed_at < %s
        LIMIT %s FOR UPDATE SKIP LOCKED
    )
"""
_ROWS = 5_000  # in one transaction, which is short enough that nobody waits for it


@dataclass(frozen=True)
class RunSelection:
    """A selection of runs; None and () select any. `since` and `until` bound changed_at; `until` is exclusive."""

    ids: Sequence[int] = ()
    task: str | None = None
    state: str | None = "failed"
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None  # with a smaller id

    def where(self) -> tuple[str, list[Any]]:
        """The condition, and its values."""
        conditions = (
            ("id = ANY (%s)", list(self.ids) or None),
            ("task = %s", self.task),
            ("state = %s", self.state),
            ("changed_at >= %s", self.since),
            ("changed_at < %s", self.until),
            ("id < %s", self.before),
        )
        chosen = [(condition, value) for condition, value in conditions if value is not None]
        return " AND ".join(["true", *(condition for condition, _ in chosen)]), [value for _, value in chosen]


def page(selection: RunSelection, limit: int) -> list[dict[str, Any]]:
    """Up to `limit` runs, newest first. Raises peewee.DatabaseError."""
    where, values = selection.where()
    rows = database.execute_sql(_PAGE.format(where=where), [*values, limit]).fetchall()
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def find(run_id: int) -> dict[str, Any] | None:
    """A run with its traceback; None if there is none. Raises peewee.DatabaseError."""
    row = database.execute_sql(_ONE, (run_id,)).fetchone()
    return None if row is None else dict(zip((*COLUMNS, "note", "traceback"), row, strict=True))


def count(selection: RunSelection) -> int:
    """How many runs are selected. Raises peewee.DatabaseError."""
    where, values = selection.where()
    return int(database.execute_sql(_COUNT.format(where=where), values).fetchone()[0])


def retry(selection: RunSelection) -> int:
    """Let the selected failed runs run once more; returns how many. Raises peewee.DatabaseError."""
    where, values = selection.where()
    return _in_parts(_RETRY.format(where=where), values)


def discard(selection: RunSelection, note: str) -> int:
    """Mark the selected failed runs as discarded; returns how many. Raises peewee.DatabaseError."""
    where, values = selection.where()
    return _in_parts(_DISCARD.format(where=where), [note, *values])


def delete_ended_before(moment: datetime) -> Iterator[int]:
    """Delete calls that ended before `moment`, and runs discarded before; yields the count of each short transaction.

    A call with the id of a deleted one runs again.
    """
    return delete_until_none(_DELETE, moment, _ROWS)


def _in_parts(statement: str, values: Sequence[Any]) -> int:
    total = 0
    while True:
        changed: int = database.execute_sql(statement, [*values, _ROWS]).rowcount
        total += changed
        if changed < _ROWS:
            return total
