"""What the API answers, as types: the description at /openapi.json is made from them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field


class Accepted(BaseModel):
    """Where Kafka keeps a message."""

    id: UUID
    topic: str
    partition: int
    offset: int


class Message(BaseModel):
    """A message as it is stored."""

    id: UUID
    type: str | None
    key: str | None
    topic: str
    partition: int
    offset: int
    produced_at: datetime = Field(description="when its producer made it")
    stored_at: datetime = Field(description="when PostgreSQL got it")
    headers: dict[str, Any] | None
    payload: Any = Field(description="the JSON value that was sent")


class Page(BaseModel):
    """Messages, newest first."""

    messages: list[Message]
    next: str | None = Field(description="the cursor of the next page; null on the last")
