"""GET /messages/export: all messages that match, as lines of JSON or as a table, however many there are."""

import csv
import io
from collections.abc import Iterator
from typing import Any, Literal

import orjson
from flask import Response
from flask_openapi3 import APIBlueprint
from pydantic import Field

from api import access, limits
from api.answers import shown
from api.postgresql import EXPORTING
from api.reading import TAG, Wanted
from tasks import reading
from tasks.database import TRANSIENT, database
from tasks.reading import Filter, Keyset, Page

blueprint = APIBlueprint("exporting", __name__, url_prefix="/messages", abp_tags=[TAG], abp_security=access.SECURITY)
access.needs(blueprint, "read")

_ROWS, _BYTES = 1000, 1_000_000  # read at a time; together they are what an export keeps in memory
_SENT_AT_ONCE = 64_000  # what a slow client must take before it counts as gone


class WantedExport(Wanted):
    """Which messages, and how they are written."""

    format: Literal["ndjson", "csv"] = Field("ndjson", description="one JSON object a line, or a table")


@blueprint.get(
    "/export",
    responses={200: {"description": "messages", "content": {"application/x-ndjson": {}, "text/csv": {}}}},
)
def export(query: WantedExport) -> Response:
    """All messages that match, newest first, streamed; those that come meanwhile are not among them.

    In a table a type or key that a spreadsheet would take for a formula begins with an apostrophe. When the
    server has to break off, so does the connection: an answer that ends as it should is whole.
    """
    wanted = query.filter()
    leave = limits.export()
    try:
        first = _page(wanted, None)  # before the answer begins, so that it can be a problem
    except BaseException:
        leave()
        raise
    table = query.format == "csv"
    text = _table(wanted, first) if table else _lines(wanted, first)
    kind = "text/csv; charset=utf-8; header=present" if table else "application/x-ndjson"
    name = f'attachment; filename="messages.{query.format}"'
    response = Response(text, content_type=kind, headers={"Content-Disposition": name})
    response.call_on_close(leave)
    return response


def _page(wanted: Filter, after: Keyset | None) -> Page:
    # A query for each: a client that reads for hours holds neither a connection nor a snapshot.
    try:
        with EXPORTING.transaction():
            return reading.page(wanted, after, _ROWS, _BYTES)
    except TRANSIENT:
        database.close_idle()  # after a restart of PostgreSQL every pooled connection is dead
        with EXPORTING.transaction():
            return reading.page(wanted, after, _ROWS, _BYTES)


def _pages(wanted: Filter, page: Page) -> Iterator[list[dict[str, Any]]]:
    yield page.messages
    while page.next is not None:
        page = _page(wanted, page.next)
        yield page.messages


def _lines(wanted: Filter, first: Page) -> Iterator[bytes]:
    for messages in _pages(wanted, first):
        text = b"".join(orjson.dumps(shown(message)) + b"\n" for message in messages)
        for start in range(0, len(text), _SENT_AT_ONCE):
            yield text[start : start + _SENT_AT_ONCE]


def _table(wanted: Filter, first: Page) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow(reading.NAMES)
    for messages in _pages(wanted, first):
        for message in messages:
            writer.writerow(_cells(message))
            if text.tell() > _SENT_AT_ONCE:
                yield text.getvalue().encode()
                text.seek(0)
                text.truncate()
    yield text.getvalue().encode()


def _cells(message: dict[str, Any]) -> list[Any]:
    times = {name: message[name].isoformat() for name in ("produced_at", "stored_at")}
    # JSON, numbers and times begin like no formula, but for a negative number, which is harmless.
    names = {name: _harmless(message[name]) for name in ("type", "key", "topic")}
    cells = {**message, **times, **names}
    return [cells[name] for name in reading.NAMES]


def _harmless(text: str | None) -> str | None:
    # What begins like a formula is run by spreadsheets; an apostrophe makes it text (OWASP, "CSV Injection").
    return f"'{text}" if text and text[0] in "=+-@\t\r\n＝＋－＠" else text
