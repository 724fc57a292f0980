"""Reads rows of `message` within a limit of bytes, and one message whole, piece by piece.

jsonb may take 50 times its sender's bytes as text (1e308 has 309 digits), so PostgreSQL is asked for the length of a
text before the text itself is fetched. Most rows are so small that their stored size alone answers that.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tasks.store.connection import database
from tasks.store.models import COLUMNS, StoredMessage
from tasks.store.rows import pieces

SHOWN_BYTES = 2_000_000  # of text: of a larger message only the beginning is read
_BEGINNING = 200  # characters of its type and key
_FETCHED_AT_ONCE = 50
# The columns of a row that is perhaps cut; the others are read as they are.
_CUT = {
    "type": f"CASE WHEN cut THEN left(type, {_BEGINNING}) ELSE type END",
    "key": f"CASE WHEN cut THEN left(key, {_BEGINNING}) ELSE key END",
    "headers": "CASE WHEN NOT cut THEN headers END",
    "payload": "CASE WHEN NOT cut THEN payload END",
}
_WITHIN = f"""
    SELECT {{more}} {", ".join(_CUT.get(name, f'"{name}"') for name in COLUMNS)},
        CASE WHEN length > {SHOWN_BYTES} THEN length END, before
    FROM (
        SELECT *, length > {SHOWN_BYTES} OR before >= %s AS cut
        FROM (
            SELECT *, coalesce(sum(least(length, {SHOWN_BYTES})) OVER previous, 0)::bigint AS before
            FROM ({{query}}) AS message, LATERAL (
                SELECT CASE
                    -- Not compressed: such a text has at most 50 times the size.
                    WHEN pg_column_size(payload) + coalesce(pg_column_size(headers), 0)
                            + coalesce(octet_length(key), 0) + coalesce(octet_length(type), 0) < 8000
                        AND pg_column_compression(payload) IS NULL AND pg_column_compression(headers) IS NULL
                    THEN 0
                    ELSE coalesce(octet_length(payload::text), 0) + coalesce(octet_length(headers::text), 0)
                        + coalesce(octet_length(key), 0) + coalesce(octet_length(type), 0)
                END AS length
                OFFSET 0 -- so that it is evaluated once
            ) AS lengths
            WINDOW previous AS (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        ) AS measured
    ) AS judged
"""
_COLUMNS = ", ".join(f'"{name}"' for name in COLUMNS)
_PIECE = f"""
    SELECT substring(convert_to(row_to_json(whole)::text, 'UTF8') FROM %s FOR %s)
    FROM (SELECT {_COLUMNS} FROM message WHERE id = %s AND topic = %s AND stored_at = %s) AS whole
"""


def size(rows: Iterable[Sequence[Any]]) -> int:
    """The length of all text in the rows."""
    return sum(len(value) for row in rows for value in row if isinstance(value, str))


def rows_within(
    query: str, values: Sequence[Any], most_bytes: int, more_columns: str = ""
) -> tuple[list[tuple[Any, ...]], bool]:
    """The rows of a query on `message` until their text exceeds `most_bytes`; and whether there may be more rows.

    A row has the columns of `StoredMessage`, after those of `more_columns`, such as `xact,`. A LIMIT counts rows, and
    rows may be large: memory holds at most `most_bytes`, a message, and 50 small rows.
    """
    rows: list[tuple[Any, ...]] = []
    held, more = 0, True
    with database.atomic():
        statement = _WITHIN.format(more=more_columns, query=query)
        database.execute_sql(f"DECLARE rows_within NO SCROLL CURSOR FOR {statement}", [most_bytes, *values])
        while held < most_bytes:
            some = database.execute_sql(f"FETCH {_FETCHED_AT_ONCE} FROM rows_within").fetchall()
            within = [row[:-1] for row in some if row[-1] < most_bytes]
            rows += within
            held += size(within)
            more = len(within) < len(some) or len(some) == _FETCHED_AT_ONCE
            if len(within) < _FETCHED_AT_ONCE:
                break
        database.execute_sql("CLOSE rows_within")
    return rows, more


def whole(message: StoredMessage) -> Iterator[bytes]:
    """The message as a JSON object whose fields are its columns, as `pieces`; nothing if it is deleted."""

    def read(begin: int, length: int) -> Any:
        values = (begin, length, message.id, message.topic, message.stored_at)
        row = database.execute_sql(_PIECE, values).fetchone()
        return row and row[0]

    return pieces(read)
