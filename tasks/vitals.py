"""A thread of the workers' parent: gives its signs of life, and ends it when it reads its queue no more.

A parent that is alive and deaf is worse than a dead one: nobody starts it anew. Celery over Redis had three ways there
(DECISIONS 15); should there be a fourth, a pod loses half of WATCHDOG_SECONDS and not its work.
"""

import os
import threading
import time

import redis
from celery.worker.state import reserved_requests

from tasks import telemetry
from tasks.claims import BEAT_SECONDS, ClaimDesk
from tasks.errors import EXIT_FAILED


class Vitals(threading.Thread):
    """Runs for as long as the process lives."""

    def __init__(self, desk: ClaimDesk, queue: str, limit_seconds: float) -> None:
        super().__init__(name="vitals", daemon=True)
        self._desk = desk
        self._queue = queue
        self._limit = limit_seconds

    def run(self) -> None:
        """Say once a second that we live; end the process when tasks wait and it takes none for too long."""
        read_at = time.monotonic()
        while True:
            waiting = self._beat()
            if not waiting or len(reserved_requests):
                read_at = time.monotonic()
            if time.monotonic() - read_at > self._limit:
                telemetry.emit("worker.stuck", waiting=waiting, seconds=round(self._limit))
                os._exit(EXIT_FAILED)  # what hangs would outlive sys.exit
            time.sleep(BEAT_SECONDS)

    def _beat(self) -> int:
        """The tasks that wait in the queue; none while Redis is away, when no bridge can miss us either."""
        try:
            self._desk.beat()
            return self._desk.unread(self._queue)
        except redis.RedisError:
            return 0
