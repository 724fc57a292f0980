"""GET /messages/stream: newly stored messages as server-sent events, for many listeners at the cost of one reader.

A listener is a thread and a position. One thread reads what is new and keeps the last of it; listeners take it
from there, and who is further behind reads from PostgreSQL until it has caught up. So a slow listener needs no
queue, and a client that comes back with the id of its last event misses nothing, whatever happened meanwhile.
"""

import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import takewhile
from typing import Any, NamedTuple

import orjson
import peewee
import psycopg2
from flask import Response, current_app, request
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict, Field

from api import access
from api.answers import shown
from api.problems import Problem, bad_parameter
from tasks import tailing
from tasks.database import database
from tasks.settings import Settings
from tasks.tailing import Position

blueprint = APIBlueprint(
    "streaming",
    __name__,
    url_prefix="/messages",
    abp_tags=[Tag(name="Reading", description="What is stored")],
    abp_security=access.SECURITY,
)
access.needs(blueprint, "read")

_POLL_SECONDS = 0.25
_BUSY_SECONDS = 0.05  # while messages come: a few at once cost less
_ALIVE_SECONDS = 15.0  # between two signs of life; proxies end connections that are silent for a minute
_AT_ONCE = 500
_KEPT = 5000  # messages that listeners are served from without a query
_AWAY = (peewee.PeeweeException, psycopg2.Error)


class Event(NamedTuple):
    """A message as all listeners get it."""

    position: Position
    type: str | None
    key: str | None
    topic: str
    text: bytes


class Tail:
    """What was stored last, kept up to date by one thread while anybody listens."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._kept: deque[Event] = deque(maxlen=_KEPT)
        self._before: Position | None = None  # everything after it, up to what is read, is kept
        self._read = Position(0, uuid.UUID(int=0))
        self._listeners = 0
        self._thread: threading.Thread | None = None
        self.serving: Callable[[], bool] = lambda: True

    def join(self, most: int) -> Position:
        """Count one listener more, and say where the new begins. Raises Problem, peewee.DatabaseError."""
        with self._changed:
            if self._listeners >= most:
                detail = f"This process has {most} listeners already."
                raise Problem(503, "too-many-listeners", "Too many listeners", detail)
            self._listeners += 1
        try:
            with database.connection_context():
                position = tailing.now()
        except BaseException:
            self.leave()
            raise
        self._ensure_reader(position)
        return position

    def leave(self) -> None:
        """Count one listener less."""
        with self._changed:
            self._listeners -= 1

    def after(self, position: Position, seconds: float) -> list[Event]:
        """Messages after `position`; waits up to `seconds` for a first one. Raises what PostgreSQL raises."""
        with self._changed:
            if self._before is not None and position >= self._before:
                if position >= self._read:
                    self._changed.wait(seconds)
                if self._before is not None and position >= self._before:
                    newer = list(takewhile(lambda one: one.position > position, reversed(self._kept)))
                    return newer[::-1][:_AT_ONCE]
        with database.connection_context():
            return _read(position, _AT_ONCE)

    def _ensure_reader(self, position: Position) -> None:
        with self._changed:
            if self._thread is None:
                self._kept.clear()
                self._before = self._read = position
                self._thread = threading.Thread(target=self._run, name="tail", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._listeners:
                    self._before = self._thread = None
                    return
                read = self._read
            found: list[Event] = []
            with suppress(*_AWAY), database.connection_context():  # away: the news only come later
                found = _read(read, _AT_ONCE)
            with self._changed:
                for one in found:
                    if len(self._kept) == _KEPT:
                        self._before = self._kept[0].position
                    self._kept.append(one)
                    self._read = one.position
                if found:
                    self._changed.notify_all()
                self._changed.wait(_BUSY_SECONDS if found else _POLL_SECONDS)


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

    A client that comes back with Last-Event-ID gets everything after that event.
    """
    settings: Settings = current_app.extensions["settings"]
    tail: Tail = current_app.extensions["tail"]
    given = request.headers.get("Last-Event-ID") or query.after
    try:
        resumed = None if given is None else tailing.parse(given)
    except ValueError:
        raise bad_parameter("Last-Event-ID", f"{given!r} is the id of no event.") from None
    position = tail.join(settings.stream_listeners)
    events = _events(tail, resumed or position, query)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Connection": "close"}
    response = Response(events, content_type="text/event-stream; charset=utf-8", headers=headers)
    response.call_on_close(tail.leave)
    return response


def _events(tail: Tail, position: Position, wanted: Wanted) -> Iterator[bytes]:
    # An id without data is no event, but a client remembers it: it can come back before the first message.
    yield f"retry: 1000\nid: {position}\n\n".encode()
    silent = 0.0
    while tail.serving():
        found: list[Event] = []
        with suppress(*_AWAY):
            found = tail.after(position, 1.0)
        if found:
            position = found[-1].position
        text = b"".join(one.text for one in found if _matches(one, wanted))
        silent = 0.0 if text else silent + 1.0
        if text:
            yield text
        elif silent >= _ALIVE_SECONDS:
            silent = 0.0
            yield f"id: {position}\n\n".encode()


def _matches(one: Event, wanted: Wanted) -> bool:
    return wanted.type in (None, one.type) and wanted.key in (None, one.key) and wanted.topic in (None, one.topic)


def _read(position: Position, limit: int) -> list[Event]:
    return [_event(place, values) for place, values in tailing.after(position, limit)]


def _event(position: Position, values: dict[str, Any]) -> Event:
    text = f"id: {position}\nevent: message\ndata: ".encode() + orjson.dumps(shown(values)) + b"\n\n"
    return Event(position, values["type"], values["key"], values["topic"], text)
