"""SIGTERM and SIGINT as a flag, with a deadline after which the process exits in any case."""

import os
import signal
import threading
from types import FrameType

from tasks.errors import EXIT_OK


class StopSignal:
    """`requested` becomes True at the first signal; the process exits `deadline_seconds` later at the latest.

    Without the deadline a Kafka client would wait forever for a broker that is away. What is not committed by then is
    read again by the next bridge.
    """

    def __init__(self, deadline_seconds: float) -> None:
        self.requested = False
        self._deadline = threading.Timer(deadline_seconds, os._exit, [EXIT_OK])
        self._deadline.daemon = True

    def install(self) -> None:
        """Handle the signals of this process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested = True
            self._deadline.start()
