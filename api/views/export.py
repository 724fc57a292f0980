"""Streams of what is stored: all matching messages as NDJSON or CSV, and one message of any size."""

import csv
import io
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Literal

import orjson
from flask import Response
from flask_openapi3 import APIBlueprint
from pydantic import Field

from api import auth, slots, streams
from api.postgresql import EXPORTING
from api.responses import message_fields, whole_url
from api.views.messages import TAG, MessagePath, MessageQuery, TopicQuery, not_stored
from tasks.store import messages
from tasks.store.connection import TRANSIENT
from tasks.store.message_rows import whole as whole_message
from tasks.store.messages import Filter, Page
from tasks.store.models import COLUMNS, StoredMessage
from tasks.store.rows import Keyset

blueprint = APIBlueprint("exporting", __name__, url_prefix="/messages", abp_tags=[TAG], abp_security=auth.SECURITY)
auth.needs(blueprint, "read")

_ROWS, _BYTES = 1000, 1_000_000  # read at a time: an export keeps no more in memory


class ExportQuery(MessageQuery):
    """Filters, and the format."""

    format: Literal["ndjson", "csv"] = Field("ndjson", description="ndjson: one JSON object a line; csv: a table")


@blueprint.get(
    "/export",
    responses={200: {"description": "messages", "content": {"application/x-ndjson": {}, "text/csv": {}}}},
)
def export(query: ExportQuery) -> Response:
    """Stream all matching messages, newest first, without those that are stored meanwhile.

    In CSV, a type, key or topic that a spreadsheet would run as a formula begins with an apostrophe, and the payload
    of a message that is too large to be shown is the path that streams it. If the response ends normally, the export
    is complete; after an error the connection is closed.
    """
    matching, table = query.filter(), query.format == "csv"
    kind = "text/csv; charset=utf-8; header=present" if table else "application/x-ndjson"
    name = f'attachment; filename="messages.{query.format}"'

    def begin() -> Response:
        first = _page(matching, None)
        text = _table(matching, first) if table else streams.parts(_lines(matching, first))
        return Response(text, content_type=kind, headers={"Content-Disposition": name})

    return _in_a_slot(begin)


@blueprint.get(
    "/<uuid:message_id>/whole", responses={200: {"description": "the message", "content": {"application/json": {}}}}
)
def whole(path: MessagePath, query: TopicQuery) -> Response:
    """Stream one message, however large it is. After an error the connection is closed.

    `GET /messages/{message_id}` shows all others, and gives the path of this route for a message that is too large.
    """

    def begin() -> Response:
        with EXPORTING.transaction():
            message = messages.find(path.message_id, query.topic)
        pieces = iter(()) if message is None else _pieces(message)
        first = next(pieces, None)
        if first is None:
            raise not_stored(path.message_id)
        return Response(streams.parts(chain([first], pieces)), content_type="application/json")

    return _in_a_slot(begin)


def _in_a_slot(begin: Callable[[], Response]) -> Response:
    """The response that `begin` returns, with a slot until it is sent.

    `begin` reads the first rows, so that an error is a problem response.
    """
    leave = slots.export()
    try:
        response = begin()
    except BaseException:
        leave()
        raise
    response.call_on_close(leave)
    return response


def _page(matching: Filter, after: Keyset | None) -> Page:
    # A query for each: a client that reads for hours holds neither a connection nor a snapshot.
    try:
        with EXPORTING.transaction():
            return messages.page(matching, after, _ROWS, _BYTES)
    except TRANSIENT:  # such as a restart of PostgreSQL: the pool then makes a new connection
        with EXPORTING.transaction():
            return messages.page(matching, after, _ROWS, _BYTES)


def _pages(matching: Filter, page: Page) -> Iterator[list[StoredMessage]]:
    yield page.messages
    while page.next is not None:
        page = _page(matching, page.next)
        yield page.messages


def _lines(query: Filter, first: Page) -> Iterator[bytes]:
    for page in _pages(query, first):
        for message in page:
            if message.length is None:
                yield orjson.dumps(message_fields(message)) + b"\n"
            else:
                yield from _pieces(message)
                yield b"\n"


def _pieces(message: StoredMessage) -> Iterator[bytes]:
    return streams.read(whole_message(message), EXPORTING)


def _table(query: Filter, first: Page) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow(COLUMNS)
    for page in _pages(query, first):
        for message in page:
            writer.writerow(_cells(message))
            if text.tell() > streams.SENT_AT_ONCE:
                yield text.getvalue().encode()
                text.seek(0)
                text.truncate()
    yield text.getvalue().encode()


def _cells(message: StoredMessage) -> list[Any]:
    # JSON, numbers and times cannot begin like a formula, except for a negative number, which is harmless.
    names = {name: _harmless(getattr(message, name)) for name in ("type", "key", "topic")}
    moments = {"produced_at": message.produced_at, "stored_at": message.stored_at}
    times = {name: moment and moment.isoformat() for name, moment in moments.items()}
    cells = {name: getattr(message, name) for name in COLUMNS} | names | times
    if message.length is not None:
        cells["payload"] = whole_url(message)
    return list(cells.values())


def _harmless(text: str | None) -> str | None:
    # Spreadsheets run text that begins like a formula; an apostrophe prevents it (OWASP, "CSV Injection").
    return f"'{text}" if text and text[0] in "=+-@\t\r\n＝＋－＠" else text
