"""JSON responses, and a stored message as JSON fields."""

from typing import Any
from urllib.parse import urlencode

import orjson
from flask import Response

from api.wsgi import CompleteResponse
from tasks.store.models import StoredMessage


def json_response(value: Any, status: int = 200, location: str | None = None) -> Response:
    """A value as JSON; `location` is the path of the header Location."""
    body = orjson.dumps(value) + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    if location is not None:
        headers.append(("Location", location))
    return CompleteResponse([body], status, headers)


def message_fields(message: StoredMessage) -> dict[str, Any]:
    """A message as JSON fields. Headers and payload are passed through as PostgreSQL returned them."""
    fields = {
        **message._asdict(),
        "id": str(message.id),
        "produced_at": message.produced_at and message.produced_at.isoformat(),
        "stored_at": message.stored_at.isoformat(),
        "headers": _fragment(message.headers),
        "payload": _fragment(message.payload),
    }
    length = fields.pop("length")
    return fields if length is None else {**fields, "too_large": {"bytes": length, "url": whole_url(message)}}


def whole_url(message: StoredMessage) -> str:
    """The path of the route that streams this message, however large it is."""
    return f"/messages/{message.id}/whole?{urlencode({'topic': message.topic})}"


def _fragment(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)
