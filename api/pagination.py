"""Pages by keyset: each begins after the last row of the page before, whatever is written meanwhile."""

import uuid
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.store.rows import Keyset


class Paged(BaseModel):
    """A page of the matching rows."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=1000, description="most in a page")
    cursor: str | None = Field(None, description="the `next` of the page before")

    @field_validator("cursor")
    @classmethod
    def _of_a_page(cls, text: str | None) -> str | None:
        if text is not None:
            _keyset(text)
        return text

    def after(self) -> Keyset | None:
        """The row after which the page begins."""
        return None if self.cursor is None else _keyset(self.cursor)


def cursor(last: Keyset) -> str:
    """The cursor of the page after the one that ends with `last`."""
    return f"{last.time.isoformat()}~{last.id}"


def _keyset(text: str) -> Keyset:
    moment, _, row_id = text.replace(" ", "+").partition("~")
    try:
        return Keyset(datetime.fromisoformat(moment).astimezone(UTC), uuid.UUID(row_id))
    except (ValueError, OverflowError):
        raise ValueError("cursor must be the `next` of an earlier page") from None
