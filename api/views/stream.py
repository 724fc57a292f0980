"""GET /messages/stream: newly stored messages as server-sent events, which can be resumed without loss."""

import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator

from flask import Response, request
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, ConfigDict, Field

from api import auth
from api.feed import Event, Feed
from api.problems import Problem, bad_parameter
from api.services import services
from api.views.messages import TAG
from tasks.errors import NotReady
from tasks.store.feed import Position, parse

blueprint = APIBlueprint("streaming", __name__, url_prefix="/messages", abp_tags=[TAG], abp_security=auth.SECURITY)
auth.needs(blueprint, "read")

_ALIVE_SECONDS = 15.0  # between comments that keep the connection alive; proxies close one that is silent for a minute
_LOOK_SECONDS = 1.0  # how soon a lost client, or a stop of the process, is noticed
_SENT_AT_ONCE = 64_000  # bytes, or one larger event: a slow client must read that in time


class StreamQuery(BaseModel):
    """Filters; a message must match all that are set."""

    model_config = ConfigDict(extra="forbid")

    type: str | None = Field(None, description="this type exactly")
    key: str | None = Field(None, description="this key exactly")
    topic: str | None = Field(None, description="this topic")
    after: str | None = Field(None, description="the id of an event, like the header Last-Event-ID: resume after it")


@blueprint.get("/stream", responses={200: {"description": "events", "content": {"text/event-stream": {}}}})
def stream(query: StreamQuery) -> Response:
    """Messages as server-sent events, each once, from when they are stored.

    A client that reconnects with Last-Event-ID gets everything after that event. A client that reads nothing for ten
    seconds is disconnected, and can reconnect.
    """
    own = services()
    event_id = request.headers.get("Last-Event-ID") or query.after
    try:
        resumed = None if event_id is None else parse(event_id)
    except ValueError:
        raise bad_parameter("Last-Event-ID", f"{event_id!r} is not the id of an event.") from None
    try:
        position = own.feed.join(own.settings.stream_listeners, resumed)
    except NotReady as error:
        raise Problem(503, "unavailable", "The stream is not available", f"{error}.") from error
    client: socket.socket | None = request.environ.get("gunicorn.socket")
    events = _events(own.feed, position, query, lambda: own.serving() and not _has_left(client))
    headers = {"X-Accel-Buffering": "no", "Connection": "close"}
    response = Response(events, content_type="text/event-stream; charset=utf-8", headers=headers)
    response.call_on_close(own.feed.leave)
    return response


def _events(feed: Feed, position: Position, query: StreamQuery, still: Callable[[], bool]) -> Iterator[bytes]:
    # An id without data is not an event, but a client remembers it and can resume before the first message.
    yield f"retry: 1000\nid: {position}\n\n".encode()
    sent = time.monotonic()
    while still():
        newer, position = feed.after(position, _LOOK_SECONDS)
        for piece in _pieces(newer, query):
            yield piece
            sent = time.monotonic()
        if time.monotonic() - sent >= _ALIVE_SECONDS:
            # With the position, so that events that did not match are not searched again.
            yield f": alive\nid: {position}\n\n".encode()
            sent = time.monotonic()


def _pieces(events: Iterable[Event], query: StreamQuery) -> Iterator[bytes]:
    piece: list[bytes] = []
    size = 0
    for one in events:
        if _matches(one, query):
            piece.append(one.text)
            size += len(one.text)
        if size >= _SENT_AT_ONCE:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)


def _matches(one: Event, query: StreamQuery) -> bool:
    return query.type in (None, one.type) and query.key in (None, one.key) and query.topic in (None, one.topic)


def _has_left(client: socket.socket | None) -> bool:
    """Whether the client has closed its connection, which would otherwise show only at the second send."""
    if client is None:
        return False
    readable = select.poll()  # select.select rejects descriptors over 1,023
    readable.register(client, select.POLLIN)
    try:
        return bool(readable.poll(0)) and client.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True
