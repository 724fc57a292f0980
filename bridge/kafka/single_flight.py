"""One thread calls a service that may hang; all other threads wait for its result with their own deadlines."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Runs one call at a time for any number of threads, so that a service that hangs blocks one thread."""

    def __init__(self, ask: Callable[[], T], fresh_seconds: float) -> None:
        self._ask = ask
        self._fresh_seconds = fresh_seconds
        self._lock = threading.Lock()
        self._finished_at = float("-inf")
        self._future: Future[T] | None = None

    def begin(self) -> "Future[T]":
        """The running call, or the last one while it is at most `fresh_seconds` old.

        Its `result(timeout)` raises TimeoutError, or what `ask` raised.
        """
        with self._lock:
            future = self._future
            if future is None or (future.done() and time.monotonic() - self._finished_at > self._fresh_seconds):
                future = self._future = Future()
                threading.Thread(target=self._run, args=(future,), daemon=True).start()
            return future

    def _run(self, future: "Future[T]") -> None:
        try:
            result = self._ask()
        except BaseException as error:
            self._finished_at = time.monotonic()
            future.set_exception(error)
        else:
            self._finished_at = time.monotonic()
            future.set_result(result)
