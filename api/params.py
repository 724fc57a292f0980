"""A time in a URL or body."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator


def _text(text: Any) -> str:
    if not isinstance(text, str) or text[4:5] != "-":  # a number would be read as seconds since 1970
        raise ValueError("a time must have the form 2026-01-31T12:00:00Z")
    return text.replace(" ", "+")  # a + in a URL is a space


def _in_utc(moment: datetime) -> datetime:
    try:  # PostgreSQL does not accept every offset that Python does
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time must be in the years 1 to 9999 of UTC") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_text), AfterValidator(_in_utc)]
