"""How much one process does at a time. What is beyond is refused soon, so that a client can go elsewhere.

Requests that wait keep memory and threads; without a bound an outage of Kafka fills the process with them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Literal

from flask import Flask, current_app, g, request
from flask.blueprints import Blueprint

from api.problems import Problem
from tasks.settings import Settings

_PATIENCE_SECONDS = 0.05  # a burst is over in less; an answer within 100 ms is promised
_BUSY = "This server is busy; nothing was accepted. Try again, best after a pause that grows."
OPERATORS = 8  # requests of operators at once
PAGES = 8  # descriptions of the API at once
BATCHES = 8  # batches read, checked and sent at once: each may hold MAX_BATCH_BYTES several times
EXPORTS = 8  # each has a thread for as long as its client reads
WAITERS = 32  # requests that wait for a message; they must keep no place from those that ask at once
SLOWEST_SECONDS = 10  # of a client that sends its request, or takes its answer, in drops
_SLOWEST_EXPORT_SECONDS = 60.0  # of a client that does something with an export while it reads


class Room:
    """A bounded number of places.

    Who finds none waits a moment in any case: were some refused at once, clients that ask again at once would leave
    the process no time for those inside (14 accepted a second where there could be 1,000).
    """

    def __init__(self, places: int, patience_seconds: float = _PATIENCE_SECONDS, busy: str = _BUSY) -> None:
        """`busy` is the sentence for whom finds no place within `patience_seconds`."""
        self._patience_seconds = patience_seconds
        self._busy = busy
        self._free = SimpleQueue[None]()  # a semaphore, as Python has none in C
        for _ in range(places):
            self._free.put(None)

    def enter(self) -> None:
        """Take a place. Raises Problem when none becomes free in a moment."""
        try:
            self._free.get(timeout=self._patience_seconds)
        except Empty:
            raise Problem(503, "overloaded", "Too many requests at once", self._busy) from None

    def leave(self) -> None:
        """Give the place back."""
        self._free.put(None)

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *error: object) -> None:
        self.leave()


def register(app: Flask, settings: Settings) -> None:
    """Give `app` its places."""
    app.extensions["room"] = Room(settings.web_threads)
    app.extensions["reading_room"] = Room(settings.web_threads)
    app.extensions["operating_room"] = Room(OPERATORS)
    app.extensions["page_room"] = Room(PAGES)
    app.extensions["batch_room"] = Room(BATCHES)
    app.extensions["export_room"] = Room(EXPORTS)
    app.extensions["waiting_room"] = Room(WAITERS)


def threads(settings: Settings) -> int:
    """How many requests one process serves at once, those of the stream included."""
    return 2 * settings.web_threads + OPERATORS + PAGES + settings.stream_listeners + EXPORTS + WAITERS


def bound(blueprint: Blueprint, kind: Literal["reading", "operating", "page"]) -> None:
    """Let each request to `blueprint` take one of this process's places of a kind until it ends."""
    blueprint.before_request(lambda: _enter(f"{kind}_room"))
    blueprint.teardown_request(_leave)


def room() -> Room:
    """The places of messages that are published one by one, for a view to take one after its body is read."""
    found: Room = current_app.extensions["room"]
    return found


def batches() -> Room:
    """The places of the few batches at once."""
    found: Room = current_app.extensions["batch_room"]
    return found


def _enter(name: str) -> None:
    if request.method == "OPTIONS":
        return
    room: Room = current_app.extensions[name]
    room.enter()
    g.room = room


def _leave(error: BaseException | None) -> None:
    room: Room | None = g.pop("room", None)
    if room is not None:
        room.leave()


@contextmanager
def waiting() -> Iterator[None]:
    """A place among the few that wait, instead of the request's own. Raises Problem."""
    with current_app.extensions["waiting_room"]:
        _leave(None)
        yield


def export() -> Callable[[], None]:
    """Take a place among the few exports at once, and give its client time; returns what gives the place back.

    Raises Problem.
    """
    room: Room = current_app.extensions["export_room"]
    room.enter()
    socket = request.environ.get("gunicorn.socket")
    if socket is not None:
        socket.settimeout(_SLOWEST_EXPORT_SECONDS)
    return room.leave
