"""How views answer, and where they find what the application was wired with."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from flask import Response, current_app

from bridge.publisher import Publisher
from tasks.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class _Answer(Response):
    """A response that is complete, and goes out without being looked through once more."""

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        start_response(self.status, self.headers.to_wsgi_list())
        return self.iter_encoded() if environ["REQUEST_METHOD"] != "HEAD" else ()


def json_answer(value: Any, status: int = 200, location: str | None = None) -> Response:
    """A value as JSON; `location` is a path."""
    body = orjson.dumps(value) + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    if location is not None:
        headers.append(("Location", location))
    return _Answer([body], status, headers)


def settings() -> Settings:
    """The settings of this application."""
    found: Settings = current_app.extensions["settings"]
    return found


def publisher() -> Publisher:
    """The publisher of this application."""
    found: Publisher = current_app.extensions["publisher"]
    return found


def shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """A message by its columns, as it is answered. JSON goes out as PostgreSQL gave it, so that no number changes."""
    return {
        "id": str(values["id"]),
        "type": values["type"],
        "key": values["key"],
        "topic": values["topic"],
        "partition": values["partition"],
        "offset": values["offset"],
        "produced_at": values["produced_at"].isoformat(),
        "stored_at": values["stored_at"].isoformat(),
        "headers": _fragment(values["headers"]),
        "payload": _fragment(values["payload"]),
    }


def _fragment(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)
