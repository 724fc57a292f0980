"""GET /messages reads what is stored: pages, one message by its id, and exports of any size."""

import csv
import io
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict, Field, field_validator

from api import access, shapes
from api.answers import json_answer, shown
from api.moments import Moment
from api.problems import Problem
from tasks import dead_letters, store
from tasks.database import database
from tasks.models import Message

blueprint = APIBlueprint(
    "reading",
    __name__,
    url_prefix="/messages",
    abp_tags=[Tag(name="Reading", description="What is stored")],
    abp_security=access.SECURITY,
)
access.needs(blueprint, "read")

_PAGE = 50
_LARGEST_PAGE = 1000
_LONGEST_WAIT_SECONDS = 10
_FIRST_LOOK_SECONDS, _LAST_LOOK_SECONDS = 0.02, 0.25
_COLUMNS = ("id", "type", "key", "topic", "partition", "offset", "produced_at", "stored_at", "headers", "payload")


class Wanted(BaseModel):
    """Which messages: all that match every parameter given."""

    model_config = ConfigDict(extra="forbid")

    type: str | None = Field(None, description="this type exactly")
    key: str | None = Field(None, description="this key exactly")
    topic: str | None = Field(None, description="this topic")
    partition: int | None = Field(None, ge=0, lt=1 << 31, description="this partition")
    since: Moment | None = Field(None, alias="from", description="stored at this time or later")
    until: Moment | None = Field(None, alias="to", description="stored before this time")
    contains: str | None = Field(
        None, description='JSON that the payload contains, as {"customer": {"id": 7}}; an index serves it'
    )

    @field_validator("contains")
    @classmethod
    def _json(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise ValueError(f"contains must be JSON: {error}") from None
            if "\\u0000" in text:
                raise ValueError("contains must be JSON without U+0000, which no payload has")
        return text

    def filter(self) -> store.Filter:
        """As the store wants it."""
        return store.Filter(**{name: getattr(self, name) for name in Wanted.model_fields})


class WantedPage(Wanted):
    """Which messages, and which page of them."""

    limit: int = Field(_PAGE, ge=1, le=_LARGEST_PAGE, description="most messages in a page")
    cursor: str | None = Field(None, description="`next` of the page before")

    @field_validator("cursor")
    @classmethod
    def _of_a_page(cls, text: str | None) -> str | None:
        if text is not None:
            _keyset(text)
        return text


class WantedExport(Wanted):
    """Which messages, and how they are written."""

    format: Literal["ndjson", "csv"] = Field("ndjson", description="one JSON object a line, or a table")


class One(BaseModel):
    """A message's id."""

    message_id: uuid.UUID


class Patience(BaseModel):
    """How long to wait for what is not there yet."""

    model_config = ConfigDict(extra="forbid")

    wait: float = Field(0, ge=0, le=_LONGEST_WAIT_SECONDS, description="seconds to wait until it is stored")


@blueprint.get("", responses={200: shapes.Page})
def get_page(query: WantedPage) -> Response:
    """A page of messages, newest first; `next` is the cursor of the page after it."""
    rows = store.page(query.filter(), None if query.cursor is None else _keyset(query.cursor), query.limit)
    last = rows[-1] if len(rows) == query.limit else None
    return json_answer(
        {
            "messages": [shown(row.__data__) for row in rows],
            "next": None if last is None else f"{last.stored_at.isoformat()}~{last.id}",
        }
    )


@blueprint.get(
    "/export",
    responses={200: {"description": "messages", "content": {"application/x-ndjson": {}, "text/csv": {}}}},
)
def export(query: WantedExport) -> Response:
    """All messages that match, newest first, streamed."""
    if query.format == "csv":
        return Response(_csv(query.filter()), content_type="text/csv; charset=utf-8; header=present")
    return Response(_lines(query.filter()), content_type="application/x-ndjson")


@blueprint.get("/<uuid:message_id>", responses={200: shapes.Message})
def get(path: One, query: Patience) -> Response:
    """One message by its id; 404 while it is not stored. `wait` waits for it."""
    end, pause = time.monotonic() + query.wait, _FIRST_LOOK_SECONDS
    while True:
        found = store.find(path.message_id)
        if found is not None:
            return json_answer(shown(found.__data__))
        dead = dead_letters.find_unsolved(path.message_id)
        if dead is not None:
            detail = f"It is a dead letter: {dead.reason}, {dead.detail}"
            raise Problem(404, "dead-letter", "The message could not be stored", detail, reason=dead.reason)
        if time.monotonic() + pause > end:
            raise Problem(404, "not-found", "No such message", f"No message {path.message_id} is stored (yet).")
        database.close()  # others may use it while this request sleeps
        time.sleep(pause)
        pause = min(pause * 1.5, _LAST_LOOK_SECONDS)


def _pages(wanted: store.Filter) -> Iterator[list[Message]]:
    """Pages after pages: each a query of its own, so that a client that reads for hours holds nothing open."""
    after: tuple[datetime, uuid.UUID] | None = None
    while True:
        with database.connection_context():
            rows = store.page(wanted, after, _LARGEST_PAGE)
        yield rows
        if len(rows) < _LARGEST_PAGE:
            return
        after = (rows[-1].stored_at, rows[-1].id)


def _lines(wanted: store.Filter) -> Iterator[bytes]:
    for rows in _pages(wanted):
        yield b"".join(orjson.dumps(shown(row.__data__)) + b"\n" for row in rows)


def _csv(wanted: store.Filter) -> Iterator[str]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    writer.writerow(_COLUMNS)
    for rows in _pages(wanted):
        for row in rows:
            values = row.__data__
            times = {name: values[name].isoformat() for name in ("produced_at", "stored_at")}
            writer.writerow([_harmless({**values, **times}[name]) for name in _COLUMNS])
        yield text.getvalue()
        text.seek(0)
        text.truncate()


def _harmless(value: Any) -> Any:
    # What begins like a formula is run by spreadsheets; a quote makes it text (OWASP, "CSV Injection").
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


def _keyset(cursor: str) -> tuple[datetime, uuid.UUID]:
    moment, _, message_id = cursor.replace(" ", "+").partition("~")
    try:
        return datetime.fromisoformat(moment).astimezone(UTC), uuid.UUID(message_id)
    except (ValueError, OverflowError):
        raise ValueError("cursor must be the next of an earlier page") from None
