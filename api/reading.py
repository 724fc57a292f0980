"""GET /messages reads what is stored: pages, and one message by its id, which can be waited for."""

import time
import uuid
from datetime import UTC, datetime

from flask import Response, current_app
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict, Field, field_validator

from api import access, limits, shapes
from api.answers import json_answer, shown
from api.moments import Moment
from api.problems import Problem
from tasks import dead_letters, reading
from tasks.database import database
from tasks.envelope import parse
from tasks.errors import BadRecord

TAG = Tag(name="Reading", description="What is stored")
blueprint = APIBlueprint("reading", __name__, url_prefix="/messages", abp_tags=[TAG], abp_security=access.SECURITY)
access.needs(blueprint, "read")

_PAGE = 50
_LARGEST_PAGE = 1000
_LONGEST_WAIT_SECONDS = 10
_FIRST_LOOK_SECONDS, _LAST_LOOK_SECONDS = 0.02, 0.25


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
                parse(text.encode(errors="surrogatepass"))
            except BadRecord as error:
                raise ValueError(f"contains must be JSON: {error.detail}") from None
        return text

    def filter(self) -> reading.Filter:
        """As the query wants it."""
        return reading.Filter(**{name: getattr(self, name) for name in Wanted.model_fields})


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


class One(BaseModel):
    """A message's id."""

    message_id: uuid.UUID


class Patience(BaseModel):
    """How long to wait for what is not there yet."""

    model_config = ConfigDict(extra="forbid")

    wait: float = Field(0, ge=0, le=_LONGEST_WAIT_SECONDS, description="seconds to wait until it is stored")


@blueprint.get("", responses={200: shapes.Page})
def get_page(query: WantedPage) -> Response:
    """A page of messages, newest first; `next` is the cursor of the page after it.

    A page of large messages has fewer than `limit`.
    """
    after = None if query.cursor is None else _keyset(query.cursor)
    page = reading.page(query.filter(), after, query.limit)
    cursor = None if page.next is None else f"{page.next[0].isoformat()}~{page.next[1]}"
    return json_answer({"messages": [shown(message) for message in page.messages], "next": cursor})


@blueprint.get("/<uuid:message_id>", responses={200: shapes.Message})
def get(path: One, query: Patience) -> Response:
    """One message by its id; 404 while it is not stored. `wait` waits for it."""
    found = _look(path.message_id)
    if found is None and query.wait:
        with limits.waiting():
            found = _wait(path.message_id, query.wait)
    if found is None:
        raise Problem(404, "not-found", "No such message", f"No message {path.message_id} is stored (yet).")
    return found


def _wait(message_id: uuid.UUID, seconds: float) -> Response | None:
    end, pause = time.monotonic() + seconds, _FIRST_LOOK_SECONDS
    while time.monotonic() + pause <= end and current_app.extensions["serving"]():
        database.close()  # others may use it while this request sleeps
        time.sleep(pause)
        pause = min(pause * 1.5, _LAST_LOOK_SECONDS)
        found = _look(message_id)
        if found is not None:
            return found
    return None


def _look(message_id: uuid.UUID) -> Response | None:
    found = reading.find(message_id)
    if found is not None:
        return json_answer(shown(found))
    dead = dead_letters.find_unsolved(message_id)
    if dead is None:
        return None
    detail = f"It is a dead letter: {dead.reason}, {dead.detail}"
    raise Problem(404, "dead-letter", "The message could not be stored", detail, reason=dead.reason)


def _keyset(cursor: str) -> tuple[datetime, uuid.UUID]:
    moment, _, message_id = cursor.replace(" ", "+").partition("~")
    try:
        return datetime.fromisoformat(moment).astimezone(UTC), uuid.UUID(message_id)
    except (ValueError, OverflowError):
        raise ValueError("cursor must be the next of an earlier page") from None
