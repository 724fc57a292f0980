"""How views answer, and where they find what the application was wired with."""

from typing import Any

import orjson
from flask import Response, current_app

from bridge.publisher import Publisher
from tasks.settings import Settings


def json_answer(value: Any, status: int = 200) -> Response:
    """A value as JSON."""
    return Response(orjson.dumps(value) + b"\n", status=status, content_type="application/json")


def settings() -> Settings:
    """The settings of this application."""
    found: Settings = current_app.extensions["settings"]
    return found


def publisher() -> Publisher:
    """The publisher of this application."""
    found: Publisher = current_app.extensions["publisher"]
    return found
