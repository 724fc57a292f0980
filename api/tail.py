"""What was stored last, for all listeners of a process at the cost of one reader.

A listener is a thread and a position. One thread reads what is new and keeps the last of it; listeners take it
from there, and who is further behind reads from PostgreSQL until it has caught up. So a slow listener needs no
queue, and a client that comes back with the id of its last event misses nothing, whatever happened meanwhile.
"""

import threading
import uuid
from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import orjson
import peewee

from api.answers import shown
from api.deadlines import TooSlow
from api.postgresql import CATCHING_UP, READING, STREAMING
from api.problems import Problem
from tasks import tailing, telemetry
from tasks.database import TRANSIENT
from tasks.tailing import Position

_POLL_SECONDS = 0.25
_BUSY_SECONDS = 0.05  # while messages come: a few at once cost less
_AT_ONCE = 500
_KEPT_BYTES = 16_000_000  # that listeners are served from without a query
_AWAY = (*TRANSIENT, peewee.PeeweeException, TooSlow)


class Event(NamedTuple):
    """A message as all listeners get it."""

    position: Position
    type: str | None
    key: str | None
    topic: str
    text: bytes


class Tail:
    """The messages stored last, kept up to date by one thread while anybody listens."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._catching_up = threading.BoundedSemaphore(CATCHING_UP.count)
        self._kept: deque[Event] = deque()
        self._size = 0  # bytes in _kept
        self._before: Position | None = None  # everything after it, up to what is read, is kept
        self._read = Position(0, uuid.UUID(int=0))
        self._listeners = 0
        self._thread: threading.Thread | None = None

    def join(self, most: int, resumed: Position | None) -> Position:
        """Count one listener more, and say where it begins: at what it had last, or with what is new.

        Raises Problem, NotReady, TooSlow, TRANSIENT; then it does not count.
        """
        with self._changed:
            if self._listeners >= most:
                detail = f"This process has {most} listeners already."
                raise Problem(503, "too-many-listeners", "Too many listeners", detail)
            self._listeners += 1
        try:
            with READING.transaction():
                newest = tailing.now()
                if resumed is not None and tailing.is_ahead(resumed):
                    detail = "This event is of another database, from which this one was restored: begin without it."
                    raise Problem(410, "other-database", "The stream cannot be resumed", detail)
        except BaseException:
            self.leave()
            raise
        self._ensure_reader(newest)
        return newest if resumed is None else resumed

    def leave(self) -> None:
        """Count one listener less."""
        with self._changed:
            self._listeners -= 1

    def after(self, position: Position, seconds: float) -> tuple[Sequence[Event], Position]:
        """Messages after `position`, and the position after them; waits up to `seconds` for a first one."""
        self._ensure_reader(position)
        with self._changed:
            if self._keeps(position) and position >= self._read:
                self._changed.wait(seconds)
            if self._keeps(position):
                newer = list(takewhile(lambda one: one.position > position, reversed(self._kept)))
                found = newer[::-1][:_AT_ONCE]
                return found, found[-1].position if found else position
            before = self._before
        try:
            with self._catching_up, CATCHING_UP.transaction():
                found = _read(position)
        except _AWAY:
            with self._changed:
                self._changed.wait(seconds)
            return [], position
        # Nothing between the two: it was deleted meanwhile.
        return found, found[-1].position if found else max(position, before or position)

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
                found: list[Event] = []
                try:
                    with STREAMING.transaction():
                        found = _read(self._read)
                    away = False
                except _AWAY as error:  # the news only come later
                    if not away:
                        telemetry.emit("service.unavailable", service="postgresql", reason=str(error).strip())
                    away = True
                with self._changed:
                    for one in found:
                        self._keep(one)
                    if found:
                        self._changed.notify_all()
                    self._changed.wait(_BUSY_SECONDS if found else _POLL_SECONDS)
        finally:  # also after an error nobody foresaw: the next listener that asks starts another
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
    return [_event(place, values) for place, values in tailing.after(position, _AT_ONCE)]


def _event(position: Position, values: dict[str, Any]) -> Event:
    text = f"id: {position}\nevent: message\ndata: ".encode() + orjson.dumps(shown(values)) + b"\n\n"
    return Event(position, values["type"], values["key"], values["topic"], text)
