"""GET /messages reads what is stored: pages, and one message by its id, which can be waited for."""

import time
import uuid

from flask import Response, current_app
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict, Field, field_validator

from api import access, limits, shapes
from api.answers import json_answer, shown
from api.moments import Moment
from api.pages import Paged, cursor
from api.postgresql import READING
from api.problems import Problem
from tasks import dead_letters, reading
from tasks.envelope import parse
from tasks.errors import BadRecord

TAG = Tag(name="Reading", description="What is stored")
blueprint = APIBlueprint("reading", __name__, url_prefix="/messages", abp_tags=[TAG], abp_security=access.SECURITY)
access.needs(blueprint, "read")
limits.bound(blueprint, "reading")

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


class WantedPage(Wanted, Paged):
    """Which messages, and which page of them."""


class One(BaseModel):
    """A message's id."""

    message_id: uuid.UUID


class WantedOne(BaseModel):
    """Which of the messages with an id, and how long to wait for what is not there yet."""

    model_config = ConfigDict(extra="forbid")

    wait: float = Field(0, ge=0, le=_LONGEST_WAIT_SECONDS, description="seconds to wait until it is stored")
    topic: str | None = Field(None, description="of this topic: each topic has its own ids; by default the newest")


@blueprint.get("", responses={200: shapes.Page})
def get_page(query: WantedPage) -> Response:
    """A page of messages, newest first; `next` is the cursor of the page after it.

    A page of large messages has fewer than `limit`.
    """
    with READING.transaction():
        page = reading.page(query.filter(), query.after(), query.limit)
    following = None if page.next is None else cursor(page.next)
    return json_answer({"messages": [shown(message) for message in page.messages], "next": following})


@blueprint.get("/<uuid:message_id>", responses={200: shapes.Message})
def get(path: One, query: WantedOne) -> Response:
    """One message by its id; 404 while it is not stored. `wait` waits for it."""
    found = _look(path.message_id, query.topic)
    if found is None and query.wait:
        with limits.waiting():
            found = _wait(path.message_id, query)
    if found is None:
        raise Problem(404, "not-found", "No such message", f"No message {path.message_id} is stored (yet).")
    return found


def _wait(message_id: uuid.UUID, query: WantedOne) -> Response | None:
    end, pause = time.monotonic() + query.wait, _FIRST_LOOK_SECONDS
    while time.monotonic() + pause <= end and current_app.extensions["serving"]():
        time.sleep(pause)
        pause = min(pause * 1.5, _LAST_LOOK_SECONDS)
        found = _look(message_id, query.topic)
        if found is not None:
            return found
    return None


def _look(message_id: uuid.UUID, topic: str | None) -> Response | None:
    with READING.transaction():
        found = reading.find(message_id, topic)
        dead = dead_letters.find_unsolved(message_id, topic) if found is None else None
    if found is not None:
        return json_answer(shown(found))
    if dead is None:
        return None
    detail = f"It is a dead letter: {dead.reason}, {dead.detail}"
    raise Problem(404, "dead-letter", "The message could not be stored", detail, reason=dead.reason)
