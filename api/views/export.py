"""Streams of what is stored: all matching messages as NDJSON or CSV, and one message of any size."""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Literal

import orjson
from flask import Response
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, ConfigDict, Field

from api import auth, slots
from api.postgresql import EXPORTING
from api.problems import Problem
from api.responses import message_fields, whole_url
from api.views.messages import TAG, MessagePath, MessageQuery
from tasks.store import messages
from tasks.store.connection import TRANSIENT
from tasks.store.message_rows import whole as whole_message
from tasks.store.messages import Filter, Page
from tasks.store.models import COLUMNS, StoredMessage
from tasks.store.rows import Keyset

blueprint = APIBlueprint("exporting", __name__, url_prefix="/messages", abp_tags=[TAG], abp_security=auth.SECURITY)
auth.needs(blueprint, "read")

_ROWS, _BYTES = 1000, 1_000_000  # read at a time: an export keeps no more in memory
_SENT_AT_ONCE = 64_000  # that a slow client must read in time, or it is disconnected


class WholeQuery(BaseModel):
    """The topic of the message."""

    model_config = ConfigDict(extra="forbid")

    topic: str | None = Field(None, description="the message of this topic; by default the newest with this id")


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
    matching = query.filter()
    leave = slots.export()
    try:
        first = _page(matching, None)  # before the response begins, so that an error is a problem response
    except BaseException:
        leave()
        raise
    table = query.format == "csv"
    text = _table(matching, first) if table else _parts(_lines(matching, first))
    kind = "text/csv; charset=utf-8; header=present" if table else "application/x-ndjson"
    name = f'attachment; filename="messages.{query.format}"'
    response = Response(text, content_type=kind, headers={"Content-Disposition": name})
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


@blueprint.get(
    "/<uuid:message_id>/whole", responses={200: {"description": "the message", "content": {"application/json": {}}}}
)
def whole(path: MessagePath, query: WholeQuery) -> Response:
    """Stream one message, however large it is. After an error the connection is closed.

    `GET /messages/{message_id}` shows all others, and gives the path of this route for a message that is too large.
    """
    leave = slots.export()
    try:
        with EXPORTING.transaction():
            message = messages.find(path.message_id, query.topic)
        pieces = _pieces(message) if message else iter(())
        first = next(pieces, None)  # before the response begins, so that an error is a problem response
        if first is None:
            raise Problem(404, "not-found", "No such message", f"No message {path.message_id} is stored (yet).")
    except BaseException:
        leave()
        raise
    response = Response(_parts(chain([first], pieces)), content_type="application/json")
    response.call_on_close(leave)
    return response


def _lines(query: Filter, first: Page) -> Iterator[bytes]:
    for page in _pages(query, first):
        for message in page:
            if message.length is None:
                yield orjson.dumps(message_fields(message)) + b"\n"
            else:
                yield from _pieces(message)
                yield b"\n"


def _pieces(message: StoredMessage) -> Iterator[bytes]:
    # A transaction for each, as for each page.
    pieces = whole_message(message)
    while True:
        with EXPORTING.transaction():
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


def _parts(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in parts of about _SENT_AT_ONCE: small ones are joined, large ones are divided."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) < _SENT_AT_ONCE:
            continue
        for start in range(0, len(waiting), _SENT_AT_ONCE):
            yield bytes(waiting[start : start + _SENT_AT_ONCE])
        waiting.clear()
    yield bytes(waiting)


def _table(query: Filter, first: Page) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow(COLUMNS)
    for page in _pages(query, first):
        for message in page:
            writer.writerow(_cells(message))
            if text.tell() > _SENT_AT_ONCE:
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
