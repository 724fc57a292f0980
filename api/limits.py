"""How much a process does at a time. Requests beyond a limit are rejected soon, so that a client can go elsewhere.

A waiting request keeps memory and a thread; without a limit an outage of Kafka fills the process with them.
"""

from dataclasses import dataclass
from queue import Empty, SimpleQueue

from api.problems import Problem
from tasks.config.settings import Settings

_PATIENCE_SECONDS = 0.05  # a burst is over in less; a response within 100 ms is promised
_BUSY = "The server is busy; nothing was accepted. Try again with an increasing delay."
OPERATORS = 8  # concurrent requests of operators
PAGES = 8  # concurrent requests for the API's description
BATCHES = 8  # concurrent batch requests: each may need several times MAX_BATCH_BYTES
EXPORTS = 8  # each occupies a thread while its client reads
WAITERS = 32  # requests with ?wait; they must not occupy the slots of other requests
SLOWEST_SECONDS = 10  # of a client that sends its request, or reads its response, slowly


class Slots:
    """A limited number of slots.

    Every request waits a moment for a free slot. If some were rejected at once, clients that retry at once would leave
    no time for the requests in progress (14 accepted a second instead of 1,000).
    """

    def __init__(self, count: int, patience_seconds: float = _PATIENCE_SECONDS, busy: str = _BUSY) -> None:
        """`busy` is the problem's detail when no slot becomes free within `patience_seconds`."""
        self._patience_seconds = patience_seconds
        self._busy = busy
        self._free = SimpleQueue[None]()  # a semaphore in C, which Python's own is not
        for _ in range(count):
            self._free.put(None)

    def acquire(self) -> None:
        """Take a slot. Raises Problem when none becomes free in time."""
        try:
            self._free.get(timeout=self._patience_seconds)
        except Empty:
            raise Problem(503, "overloaded", "Too many requests at once", self._busy) from None

    def release(self) -> None:
        """Return the slot."""
        self._free.put(None)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


@dataclass(frozen=True)
class Limits:
    """The slots of a process, by the kind of request."""

    publishing: Slots
    batches: Slots
    reading: Slots
    operating: Slots
    pages: Slots
    exports: Slots
    waiting: Slots

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """The limits that the settings ask for."""
        return cls(
            publishing=Slots(settings.web_threads),
            batches=Slots(BATCHES),
            reading=Slots(settings.web_threads),
            operating=Slots(OPERATORS),
            pages=Slots(PAGES),
            exports=Slots(EXPORTS),
            waiting=Slots(WAITERS),
        )


def threads(settings: Settings) -> int:
    """The number of requests that a process serves at once, streams included."""
    return 2 * settings.web_threads + OPERATORS + PAGES + settings.stream_listeners + EXPORTS + WAITERS
