"""GET /messages reads what is stored: pages, and one message by its id."""

import uuid
from datetime import datetime
from typing import Any

import orjson
from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from api import access, shapes
from api.answers import json_answer
from api.problems import Problem
from tasks import dead_letters, store
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


class Wanted(BaseModel):
    """Which messages: all that match every parameter given."""

    model_config = ConfigDict(extra="forbid")

    type: str | None = Field(None, description="this type exactly")
    key: str | None = Field(None, description="this key exactly")
    topic: str | None = Field(None, description="this topic")
    since: AwareDatetime | None = Field(None, alias="from", description="stored at this time or later")
    until: AwareDatetime | None = Field(None, alias="to", description="stored before this time")
    limit: int = Field(_PAGE, ge=1, le=_LARGEST_PAGE, description="most messages in a page")
    cursor: str | None = Field(None, description="`next` of the page before")

    @field_validator("since", "until", mode="before")
    @classmethod
    def _plus(cls, text: Any) -> Any:
        return text.replace(" ", "+") if isinstance(text, str) else text  # a + in a URL is a space

    @field_validator("cursor")
    @classmethod
    def _of_a_page(cls, text: str | None) -> str | None:
        if text is not None:
            _keyset(text)
        return text


class One(BaseModel):
    """A message's id."""

    message_id: uuid.UUID


@blueprint.get("/<message_id>", responses={200: shapes.Message, 404: None})
def get(path: One) -> Response:
    """One message by its id; 404 while it is not stored."""
    found = store.find(path.message_id)
    if found is not None:
        return json_answer(_shown(found))
    dead = dead_letters.find_unsolved(path.message_id)
    if dead is not None:
        detail = f"It is a dead letter: {dead.reason}, {dead.detail}"
        raise Problem(404, "dead-letter", "The message could not be stored", detail, reason=dead.reason)
    raise Problem(404, "not-found", "No such message", f"No message {path.message_id} is stored (yet).")


@blueprint.get("", responses={200: shapes.Page})
def get_page(query: Wanted) -> Response:
    """A page of messages, newest first; `next` is the cursor of the page after it."""
    wanted = store.Filter(type=query.type, key=query.key, topic=query.topic, since=query.since, until=query.until)
    rows = store.page(wanted, None if query.cursor is None else _keyset(query.cursor), query.limit)
    last = rows[-1] if len(rows) == query.limit else None
    return json_answer(
        {
            "messages": [_shown(row) for row in rows],
            "next": None if last is None else f"{last.stored_at.isoformat()}~{last.id}",
        }
    )


def _keyset(cursor: str) -> tuple[datetime, uuid.UUID]:
    moment, _, message_id = cursor.replace(" ", "+").partition("~")
    try:
        return datetime.fromisoformat(moment), uuid.UUID(message_id)
    except ValueError:
        raise ValueError("cursor must be the next of an earlier page") from None


def _shown(row: Message) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "type": row.type,
        "key": row.key,
        "topic": row.topic,
        "partition": row.partition,
        "offset": row.offset,
        "produced_at": row.produced_at.isoformat(),
        "stored_at": row.stored_at.isoformat(),
        "headers": _fragment(row.headers),
        "payload": _fragment(row.payload),
    }


def _fragment(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)
