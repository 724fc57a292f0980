"""A thread of the storing workers' parent: sends its heartbeat, and ends the process when it no longer reads its queue.

A parent that runs but takes no tasks is worse than one that has exited, because nothing restarts it. Celery over Redis
could get stuck in three ways (decision 15); if there is a fourth, a pod loses half of WATCHDOG_SECONDS, not its work.
"""

import os
import threading
import time

import redis
from celery.worker.state import reserved_requests

from tasks.claim_check import ClaimStore
from tasks.claim_store import HEARTBEAT_SECONDS
from tasks.errors import EXIT_FAILED
from tasks.observability import events


class TakesTasks:
    """Watches that a parent takes tasks while some are queued."""

    def __init__(self, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._progressed_at = time.monotonic()

    def check(self, queued: int) -> None:
        """End the process if tasks have been queued, and none was taken, for too long."""
        now = time.monotonic()
        if not queued or len(reserved_requests):
            self._progressed_at = now
        if now - self._progressed_at > self._limit:
            events.emit("worker.stuck", waiting=queued, seconds=round(self._limit))
            os._exit(EXIT_FAILED)  # a thread that hangs would outlive sys.exit


class Heartbeat(threading.Thread):
    """Runs from `start` until `stop`, or until the process ends."""

    def __init__(self, claims: ClaimStore, queue: str, limit_seconds: float) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._claims = claims
        self._queue = queue
        self._takes_tasks = TakesTasks(limit_seconds)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Send a heartbeat every second; end the process when tasks are queued and it takes none for too long."""
        while not self._stopping.is_set():
            self._takes_tasks.check(self._beat())
            self._stopping.wait(HEARTBEAT_SECONDS)

    def stop(self) -> None:
        """Stop sending heartbeats. May be called more than once."""
        self._stopping.set()

    def _beat(self) -> int:
        """The number of queued tasks; 0 while Redis is away, because then no bridge can miss the heartbeat either."""
        try:
            self._claims.send_heartbeat()
            return self._claims.length(self._queue)
        except redis.RedisError:
            return 0
