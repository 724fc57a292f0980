"""The API's responses as types, from which the description at /openapi.json is made."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, Field


class Accepted(BaseModel):
    """The place of a message in Kafka."""

    id: UUID
    topic: str
    partition: int
    offset: int


class Item(BaseModel):
    """The result of an item of a batch. Retry `failed` and `unknown` items: with the same id each is stored once."""

    index: int
    status: Literal["accepted", "invalid", "not_sent", "failed", "unknown"]
    step: Literal["validating", "publishing"] | None = None
    id: UUID | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    problem: dict[str, Any] | None = None


class Batch(BaseModel):
    """The result of a batch."""

    accepted: int = Field(description="the number of items that Kafka has")
    items: list[Item] = Field(description="a result for each, in order")


class TooLarge(BaseModel):
    """Where a message of more than 2 MB of JSON text can be read; its headers and payload are null, its key is cut."""

    bytes: int = Field(description="the size of its type, key, headers and payload as text")
    url: str = Field(description="the path that streams it whole")


class Message(BaseModel):
    """A stored message."""

    id: UUID
    type: str | None
    key: str | None
    topic: str
    partition: int
    offset: int
    produced_at: datetime | None = Field(description="the timestamp that its producer set; null without one")
    stored_at: datetime = Field(description="when PostgreSQL stored it")
    headers: dict[str, Any] | None
    payload: Any = Field(description="the JSON value that was sent")
    too_large: TooLarge | None = Field(None, description="only in a message that is too large to be shown")


class Page(BaseModel):
    """Messages, newest first."""

    messages: list[Message]
    next: str | None = Field(description="the cursor of the next page; null on the last")


class Called(BaseModel):
    """A call that Kafka has."""

    id: UUID = Field(description="of the call, and of the message that the function receives")
    task: str


class CallState(BaseModel):
    """A call of a task."""

    id: UUID
    run: int = Field(description="its number, for operators")
    task: str
    state: Literal["waiting", "retrying", "done", "failed", "expired", "discarded"]
    attempts: int
    due_at: datetime | None = Field(description="when it is run, or run again")
    expires_at: datetime | None
    changed_at: datetime
    error: str | None = Field(description="of its last attempt; of a call that is done, why its result is not kept")
    result: Any = Field(description="what the function returned, if its task has store_result")


def call_fields(call_id: UUID, call: Mapping[str, Any]) -> dict[str, Any]:
    """A call as JSON fields."""
    result = call["result"]
    kept = None if result is None else orjson.Fragment(result)
    return {"id": str(call_id), **call, "error": call["error"] or None, "result": kept}


def item(index: int, result: Any, message_id: str | None = None) -> dict[str, Any]:
    """The result of an item that Kafka does not have, or perhaps not. `result` is its problem, or an unsent message."""
    if not isinstance(result, Mapping):
        return {"index": index, "status": "not_sent", "step": "validating", "id": result.id}
    if message_id is None:
        return {"index": index, "status": "invalid", "step": "validating", "problem": result}
    status = "unknown" if result["type"].endswith("unknown-outcome") else "failed"
    return {"index": index, "status": status, "step": "publishing", "id": message_id, "problem": result}


_OBJECT = {
    "type": "object",
    "description": "Any fields; these have a meaning for the server.",
    "properties": {
        "id": {"type": "string", "description": "a UUID makes the message idempotent: sent again, it is stored once"},
        "type": {"type": "string", "description": "to filter by"},
        "key": {"type": "string", "description": "for filters; messages with the same key keep their order"},
        "topic": {"type": "string", "description": "one of the server's topics"},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Kafka headers"},
    },
    "example": {"type": "greeting", "key": "you", "text": "hello"},
}
_EVENT = {
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1},
        "type": {"type": "string", "minLength": 1},
        "partitionkey": {"type": "string"},
    },
    "example": {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "data": {"sum": 3}},
}


_TOPIC = {
    "name": "topic",
    "in": "query",
    "schema": {"type": "string"},
    "description": "the topic, before one named in the body",
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "a request repeated with the same key is stored once; for messages without an id of their own",
}


def _content(**kinds: Any) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": kinds}, "parameters": [_TOPIC, _KEY]}


PAYLOAD = {"requestBody": {"required": False, "content": {"application/json": {"schema": {}, "example": {"order": 7}}}}}
BODY = _content(**{"application/json": {"schema": _OBJECT}, "application/cloudevents+json": {"schema": _EVENT}})
BATCH = _content(
    **{
        "application/json": {"schema": {"type": "array", "items": _OBJECT}},
        "application/x-ndjson": {"schema": {"type": "string"}, "example": '{"n": 1}\n{"n": 2}\n'},
        "application/cloudevents-batch+json": {"schema": {"type": "array", "items": _EVENT}},
    }
)
