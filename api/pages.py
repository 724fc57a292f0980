"""Pages by keyset: each begins after the last row of the one before, whatever is written meanwhile."""

import uuid
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, field_validator

Keyset = tuple[datetime, uuid.UUID]


class Paged(BaseModel):
    """Which page of what matches."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=1000, description="most in a page")
    cursor: str | None = Field(None, description="`next` of the page before")

    @field_validator("cursor")
    @classmethod
    def _of_a_page(cls, text: str | None) -> str | None:
        if text is not None:
            _keyset(text)
        return text

    def after(self) -> Keyset | None:
        """The row the page begins after."""
        return None if self.cursor is None else _keyset(self.cursor)


def cursor(last: Keyset) -> str:
    """What asks for the page after the one that ends with `last`."""
    return f"{last[0].isoformat()}~{last[1]}"


def _keyset(text: str) -> Keyset:
    moment, _, row_id = text.replace(" ", "+").partition("~")
    try:
        return datetime.fromisoformat(moment).astimezone(UTC), uuid.UUID(row_id)
    except (ValueError, OverflowError):
        raise ValueError("cursor must be the next of an earlier page") from None
