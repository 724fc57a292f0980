"""How requests take slots of the process, and return them when they end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from flask import g, request
from flask.blueprints import Blueprint

from api.limits import Slots
from api.services import services

_SLOWEST_EXPORT_SECONDS = 60.0  # for a client that processes an export while it reads


def limit(blueprint: Blueprint, kind: Literal["reading", "operating", "pages"]) -> None:
    """Let each request to `blueprint` take a slot of this kind until it ends."""
    blueprint.before_request(lambda: _acquire(kind))
    blueprint.teardown_request(_release)


@contextmanager
def waiting() -> Iterator[None]:
    """A slot for a request with ?wait, in place of the slot it has. Raises Problem."""
    with services().limits.waiting:
        _release(None)
        yield


def export() -> Callable[[], None]:
    """Take a slot for an export and give its client more time to read; returns the function that releases the slot.

    Raises Problem.
    """
    slots = services().limits.exports
    slots.acquire()
    socket = request.environ.get("gunicorn.socket")
    if socket is not None:
        socket.settimeout(_SLOWEST_EXPORT_SECONDS)
    return slots.release


def _acquire(kind: str) -> None:
    if request.method == "OPTIONS":
        return
    slots: Slots = getattr(services().limits, kind)
    slots.acquire()
    g.slots = slots


def _release(error: BaseException | None) -> None:
    slots: Slots | None = g.pop("slots", None)
    if slots is not None:
        slots.release()
