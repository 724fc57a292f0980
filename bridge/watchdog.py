"""Ends a bridge that hangs, so that supervisord starts it anew: better a restart than a silent stop."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from tasks import telemetry
from tasks.errors import EXIT_FAILED

_LOOK_SECONDS = 1.0


def complaint(now: float, turned_at: float, progressed_at: float, limit: float) -> str:
    """What is wrong, or nothing: no turn of the loop, or no progress, for `limit` seconds."""
    if now - turned_at > limit:
        return f"the loop has not turned for {now - turned_at:.0f} s"
    if now - progressed_at > limit:
        return f"nothing was stored for {now - progressed_at:.0f} s, and nothing is known to be wrong"
    return ""


class Watchdog(threading.Thread):
    """Looks each second at `turned_at` and `progressed_at`, which the loop keeps up.

    `progressed_at` is when a batch was stored, or when there was nothing to store, or a reason not to. While
    Kafka is away nothing counts but is said: the loop waits in the client then, for as long as it takes.
    """

    def __init__(
        self, limit_seconds: float, state: Callable[[], Mapping[str, Any]], kafka_away: Callable[[], bool]
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.turned_at = self.progressed_at = time.monotonic()
        self._limit = limit_seconds
        self._state = state
        self._kafka_away = kafka_away

    def run(self) -> None:
        """Look until something is wrong; then log all state and end the process at once."""
        said, away = "", False
        while not said:
            time.sleep(_LOOK_SECONDS)
            was_away, away = away, self._kafka_away()
            if away:
                self.turned_at = self.progressed_at = time.monotonic()
            if away and not was_away:
                telemetry.emit("service.unavailable", service="kafka", reason="it does not say where partitions end")
            if was_away and not away:
                telemetry.emit("service.available", service="kafka")
            said = complaint(time.monotonic(), self.turned_at, self.progressed_at, self._limit)
        telemetry.emit("bridge.stuck", reason=said, **self._state())
        os._exit(EXIT_FAILED)  # a hanging thread would outlive sys.exit
