"""How a request with ?wait waits: it looks again and again, with growing pauses, in a slot for requests that wait."""

import time
from collections.abc import Callable
from typing import TypeVar

from api import slots
from api.services import services

LONGEST_SECONDS = 10
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.02, 0.25
T = TypeVar("T")


def wait(look: Callable[[], T], is_enough: Callable[[T], bool], seconds: float) -> T:
    """What `look` returns once that is enough, or at the end of `seconds`; at once if they are 0.

    Raises Problem if too many requests wait, and what `look` raises.
    """
    found = look()
    if is_enough(found) or not seconds:
        return found
    with slots.waiting():
        end, pause = time.monotonic() + seconds, _FIRST_PAUSE_SECONDS
        while time.monotonic() + pause <= end and services().serving() and not is_enough(found):
            time.sleep(pause)
            pause = min(pause * 1.5, _LAST_PAUSE_SECONDS)
            found = look()
    return found
