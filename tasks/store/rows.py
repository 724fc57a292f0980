"""Reads and deletes at a bounded cost: filters, keysets, large values in pieces, short transactions."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from peewee import Field
from peewee import Query as AnyQuery

from tasks.store.connection import database

Query = TypeVar("Query", bound=AnyQuery)
_PIECE_BYTES = 4_000_000
_DELETED_AT_ONCE = 5_000  # few enough that a transaction of them is short


class Keyset(NamedTuple):
    """The sort key of the last row of a page: the next page starts after it, whatever is written meanwhile."""

    time: datetime
    id: uuid.UUID


def narrowed(
    query: Query, wanted: Iterable[tuple[Field, Any]], time: Field, since: datetime | None, until: datetime | None
) -> Query:
    """The rows of `query` with these values, and with `time` from `since` to before `until`; None restricts nothing."""
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value)
    if since is not None:
        query = query.where(time >= since)
    if until is not None:
        query = query.where(time < until)
    return query


def pieces(read: Callable[[int, int], Any]) -> Iterator[bytes]:
    """A large value in pieces of 4 MB, so that no transaction has to last until a client has received all of it.

    `read(begin, length)` returns bytes from `begin`, which counts from 1, or None if the value does not exist. It runs
    in the caller's transaction when the next piece is taken. A value that does not exist has no pieces.
    Raises LookupError if it is deleted after the first piece, and what `read` raises.
    """
    begin = 1
    while True:
        raw = read(begin, _PIECE_BYTES)
        if raw is None and begin == 1:
            return
        if raw is None:
            raise LookupError("the row was deleted while its value was read")
        yield bytes(raw)
        if len(raw) < _PIECE_BYTES:
            return
        begin += _PIECE_BYTES


def delete_until_none(statement: str, before: datetime, at_once: int) -> Iterator[int]:
    """Repeat a DELETE of rows before a time, `at_once` in each short transaction; yields the count of each."""
    while deleted := database.execute_sql(statement, (before, at_once)).rowcount:
        yield deleted


def delete_batches(statement: str, before: datetime) -> Iterator[int]:
    """Repeat a DELETE in short transactions until no row is left; yields the number of rows of each transaction.

    The statement has the parameters `before`, `after_time`, `after_id` and `rows`, and returns the time and id of each
    deleted row. The keyset lets each run skip the index entries of rows deleted before, which remain until a vacuum.
    """
    after: tuple[datetime, str] = (datetime.min.replace(tzinfo=UTC), str(uuid.UUID(int=0)))
    while True:
        values = {"before": before, "after_time": after[0], "after_id": after[1], "rows": _DELETED_AT_ONCE}
        with database.atomic():
            gone = database.execute_sql(statement, values).fetchall()
        if not gone:
            return
        after = max((moment, str(row_id)) for moment, row_id in gone)
        yield len(gone)
