"""The newest messages for all listeners of a process, read by one thread.

A listener is a thread and a position. One thread reads new messages and keeps the latest; listeners take them from
there. A listener that is further behind reads from PostgreSQL until it has caught up. So a slow listener needs no
queue, and a client that resumes with the id of its last event misses nothing.
"""

import threading
import uuid
from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

import orjson
import peewee

from api.deadlines import TooSlow
from api.postgresql import CATCHING_UP, READING, STREAMING
from api.problems import Problem
from api.responses import message_fields
from tasks.observability import events
from tasks.store import feed
from tasks.store.connection import TRANSIENT
from tasks.store.feed import Position
from tasks.store.models import StoredMessage

_POLL_SECONDS = 0.25
_BUSY_SECONDS = 0.05  # while messages arrive: a few together cost less
_AT_ONCE = 500
_KEPT_BYTES = 16_000_000  # of messages that listeners get without a query
_AWAY = (*TRANSIENT, peewee.PeeweeException, TooSlow)


class Event(NamedTuple):
    """A message in the form that all listeners get."""

    position: Position
    type: str | None
    key: str | None
    topic: str
    text: bytes


class Feed:
    """The newest messages, updated by one thread while there are listeners."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._catching_up = threading.BoundedSemaphore(CATCHING_UP.count)
        self._kept: deque[Event] = deque()
        self._size = 0  # bytes in _kept
        self._before: Position | None = None  # every message after it, up to the newest one read, is in _kept
        self._read = Position(0, uuid.UUID(int=0))
        self._listeners = 0
        self._thread: threading.Thread | None = None

    def join(self, most: int, resumed: Position | None) -> Position:
        """Add a listener; returns where it begins: after its last event, or with new messages.

        Raises Problem, NotReady, TooSlow, TRANSIENT; then it is not added.
        """
        with self._changed:
            if self._listeners >= most:
                detail = f"This process has {most} listeners already."
                raise Problem(503, "too-many-listeners", "Too many listeners", detail)
            self._listeners += 1
        try:
            with READING.transaction():
                newest = feed.now()
                if resumed is not None and feed.is_ahead(resumed):
                    detail = "This event is from another database, from which this one was restored: start without it."
                    raise Problem(410, "other-database", "The stream cannot be resumed", detail)
        except BaseException:
            self.leave()
            raise
        self._ensure_reader(newest)
        return newest if resumed is None else resumed

    def leave(self) -> None:
        """Remove a listener."""
        with self._changed:
            self._listeners -= 1

    def after(self, position: Position, seconds: float) -> tuple[Sequence[Event], Position]:
        """Messages after `position`, and the position after them; waits up to `seconds` for the first."""
        self._ensure_reader(position)
        with self._changed:
            if self._keeps(position) and position >= self._read:
                self._changed.wait(seconds)
            if self._keeps(position):
                newer = list(takewhile(lambda one: one.position > position, reversed(self._kept)))
                latest = newer[::-1][:_AT_ONCE]
                return latest, latest[-1].position if latest else position
            before = self._before
        try:
            with self._catching_up, CATCHING_UP.transaction():
                latest = _read(position)
        except _AWAY:
            with self._changed:
                self._changed.wait(seconds)
            return [], position
        # There is nothing in between: it was deleted meanwhile.
        return latest, latest[-1].position if latest else max(position, before or position)

    def _keeps(self, position: Position) -> bool:
        return self._before is not None and position >= self._before

    def _ensure_reader(self, position: Position) -> None:
        with self._changed:
            if self._thread is None:
                self._kept.clear()
                self._size = 0
                self._before = self._read = position
                self._thread = threading.Thread(target=self._run, name="tail", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        away = False
        try:
            while True:
                with self._changed:
                    if not self._listeners:
                        return
                latest: list[Event] = []
                try:
                    with STREAMING.transaction():
                        latest = _read(self._read)
                    away = False
                except _AWAY as error:  # new messages only arrive later
                    if not away:
                        events.emit("service.unavailable", service="postgresql", reason=str(error).strip())
                    away = True
                with self._changed:
                    for one in latest:
                        self._keep(one)
                    if latest:
                        self._changed.notify_all()
                    self._changed.wait(_BUSY_SECONDS if latest else _POLL_SECONDS)
        finally:  # also after an unexpected error: the next listener starts another thread
            with self._changed:
                self._before = self._thread = None

    def _keep(self, event: Event) -> None:
        self._kept.append(event)
        self._read = event.position
        self._size += len(event.text)
        while self._size > _KEPT_BYTES and len(self._kept) > 1:
            oldest = self._kept.popleft()
            self._before = oldest.position
            self._size -= len(oldest.text)


def _read(position: Position) -> list[Event]:
    return [_event(position, message) for position, message in feed.after(position, _AT_ONCE)]


def _event(position: Position, message: StoredMessage) -> Event:
    text = f"id: {position}\nevent: message\ndata: ".encode() + orjson.dumps(message_fields(message)) + b"\n\n"
    return Event(position, message.type, message.key, message.topic, text)
