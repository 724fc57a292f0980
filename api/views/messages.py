"""GET /messages: pages of stored messages; and one by its id, for which a client can wait."""

import uuid

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict, Field, field_validator

from api import auth, schemas, slots, waiting
from api.pagination import Paged, cursor
from api.params import Moment
from api.postgresql import READING
from api.problems import Problem
from api.responses import json_response, message_fields
from tasks.errors import BadRecord
from tasks.json_value import parse
from tasks.store import dead_letters, messages

TAG = Tag(name="Reading", description="What is stored")
blueprint = APIBlueprint("reading", __name__, url_prefix="/messages", abp_tags=[TAG], abp_security=auth.SECURITY)
auth.needs(blueprint, "read")
slots.limit(blueprint, "reading")


class MessageQuery(BaseModel):
    """Filters; a message must match all that are set."""

    model_config = ConfigDict(extra="forbid")

    type: str | None = Field(None, description="this type exactly")
    key: str | None = Field(None, description="this key exactly")
    topic: str | None = Field(None, description="this topic")
    partition: int | None = Field(None, ge=0, lt=1 << 31, description="this partition")
    since: Moment | None = Field(None, alias="from", description="stored at this time or later")
    until: Moment | None = Field(None, alias="to", description="stored before this time")
    contains: str | None = Field(None, description='JSON that the payload contains, such as {"customer": {"id": 7}}')

    @field_validator("contains")
    @classmethod
    def _json(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                parse(text.encode(errors="surrogatepass"))
            except BadRecord as error:
                raise ValueError(f"contains must be JSON: {error.detail}") from None
        return text

    def filter(self) -> messages.Filter:
        """The filter of the store."""
        return messages.Filter(**{name: getattr(self, name) for name in MessageQuery.model_fields})


class PageQuery(MessageQuery, Paged):
    """Filters, and a page."""


class MessagePath(BaseModel):
    """A message's id."""

    message_id: uuid.UUID


class TopicQuery(BaseModel):
    """The topic of the message."""

    model_config = ConfigDict(extra="forbid")

    topic: str | None = Field(
        None, description="the message of this topic: each topic has its own ids; by default the newest"
    )


class LookupQuery(TopicQuery):
    """The topic of the message, and how long to wait until it is stored."""

    wait: float = Field(0, ge=0, le=waiting.LONGEST_SECONDS, description="seconds to wait until it is stored")


@blueprint.get("", responses={200: schemas.Page})
def get_page(query: PageQuery) -> Response:
    """A page of messages, newest first; `next` is the cursor of the page after it, and null on the last one.

    A page of large messages has fewer than `limit`. So may one whose filter matches few: it looks at 20,000 messages,
    and may even be empty; `next` goes on where it ended.
    """
    with READING.transaction():
        page = messages.page(query.filter(), query.after(), query.limit)
    following = None if page.next is None else cursor(page.next)
    return json_response({"messages": [message_fields(message) for message in page.messages], "next": following})


@blueprint.get("/<uuid:message_id>", responses={200: schemas.Message})
def get(path: MessagePath, query: LookupQuery) -> Response:
    """One message by its id; 404 while it is not stored. `wait` waits for it."""
    message = waiting.wait(lambda: _look(path.message_id, query.topic), lambda found: found is not None, query.wait)
    if message is None:
        raise not_stored(path.message_id)
    return message


def not_stored(message_id: uuid.UUID) -> Problem:
    """No message has this id, or not yet."""
    return Problem(404, "not-found", "No such message", f"No message {message_id} is stored (yet).")


def _look(message_id: uuid.UUID, topic: str | None) -> Response | None:
    with READING.transaction():
        message = messages.find(message_id, topic)
        dead = dead_letters.find_unsolved(message_id, topic) if message is None else None
    if message is not None:
        return json_response(message_fields(message))
    if dead is None:
        return None
    detail = f"It is a dead letter: {dead.reason}, {dead.detail}"
    raise Problem(404, "dead-letter", "The message could not be stored", detail, reason=dead.reason)
