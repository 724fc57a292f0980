"""The one place where tests wait: for a condition, with a deadline, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# Two cores run two tests, their servers and the building of an image: everything may take this many times as long.
# A deadline tells slow from never, so that a generous one hides nothing; what is measured is printed.
BUSY = 3


def wait_until(condition: Callable[[], T], description: str, seconds: float = 30) -> T:
    """The first true value of `condition`; fails with `description` when there is none in `BUSY` times `seconds`."""
    seconds *= BUSY
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {description}"
        time.sleep(0.05)
