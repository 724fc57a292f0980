"""GET /messages/stream: newly stored messages as server-sent events, to be resumed without loss."""

import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator

from flask import Response, current_app, request
from flask_openapi3 import APIBlueprint
from pydantic import BaseModel, ConfigDict, Field

from api import access
from api.answers import settings
from api.problems import Problem, bad_parameter
from api.reading import TAG
from api.tail import Event, Tail
from tasks import tailing
from tasks.errors import NotReady
from tasks.tailing import Position

blueprint = APIBlueprint("streaming", __name__, url_prefix="/messages", abp_tags=[TAG], abp_security=access.SECURITY)
access.needs(blueprint, "read")

_ALIVE_SECONDS = 15.0  # between two signs of life; proxies end connections that are silent for a minute
_LOOK_SECONDS = 1.0  # how soon a client that left, and our own end, are noticed
_SENT_AT_ONCE = 64_000  # bytes, unless one event has more: what a slow client must take to be kept


class Wanted(BaseModel):
    """Which messages: all that match every parameter given."""

    model_config = ConfigDict(extra="forbid")

    type: str | None = Field(None, description="this type exactly")
    key: str | None = Field(None, description="this key exactly")
    topic: str | None = Field(None, description="this topic")
    after: str | None = Field(None, description="the id of an event, as the header Last-Event-ID: go on behind it")


@blueprint.get("/stream", responses={200: {"description": "events", "content": {"text/event-stream": {}}}})
def stream(query: Wanted) -> Response:
    """Messages as server-sent events, each once, from when they are stored.

    A client that comes back with Last-Event-ID gets everything after that event. One that takes nothing for ten
    seconds is disconnected, and comes back.
    """
    tail: Tail = current_app.extensions["tail"]
    serving: Callable[[], bool] = current_app.extensions["serving"]
    given = request.headers.get("Last-Event-ID") or query.after
    try:
        resumed = None if given is None else tailing.parse(given)
    except ValueError:
        raise bad_parameter("Last-Event-ID", f"{given!r} is the id of no event.") from None
    try:
        position = tail.join(settings().stream_listeners, resumed)
    except NotReady as error:
        raise Problem(503, "unavailable", "The stream has no order", f"{error}.") from error
    client: socket.socket | None = request.environ.get("gunicorn.socket")
    events = _events(tail, position, query, lambda: serving() and not _has_left(client))
    headers = {"X-Accel-Buffering": "no", "Connection": "close"}
    response = Response(events, content_type="text/event-stream; charset=utf-8", headers=headers)
    response.call_on_close(tail.leave)
    return response


def _events(tail: Tail, position: Position, wanted: Wanted, still: Callable[[], bool]) -> Iterator[bytes]:
    # An id without data is no event, but a client remembers it: it can come back before the first message.
    yield f"retry: 1000\nid: {position}\n\n".encode()
    sent = time.monotonic()
    while still():
        found, position = tail.after(position, _LOOK_SECONDS)
        for piece in _pieces(found, wanted):
            yield piece
            sent = time.monotonic()
        if time.monotonic() - sent >= _ALIVE_SECONDS:
            # With the position: what did not match need not be looked through again.
            yield f": alive\nid: {position}\n\n".encode()
            sent = time.monotonic()


def _pieces(events: Iterable[Event], wanted: Wanted) -> Iterator[bytes]:
    piece: list[bytes] = []
    size = 0
    for one in events:
        if _matches(one, wanted):
            piece.append(one.text)
            size += len(one.text)
        if size >= _SENT_AT_ONCE:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)


def _matches(one: Event, wanted: Wanted) -> bool:
    return wanted.type in (None, one.type) and wanted.key in (None, one.key) and wanted.topic in (None, one.topic)


def _has_left(client: socket.socket | None) -> bool:
    """Whether the client closed its connection: without a look nobody knows before the second thing sent to it."""
    if client is None:
        return False
    readable = select.poll()  # select.select refuses descriptors over 1,023
    readable.register(client, select.POLLIN)
    try:
        return bool(readable.poll(0)) and client.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True
