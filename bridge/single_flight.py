"""One thread asks a service that may hang; everybody else waits for its answer as long as they have patience."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Asks one question at a time for any number of threads, so that a service that hangs holds up one thread."""

    def __init__(self, ask: Callable[[], T], fresh_seconds: float) -> None:
        self._ask = ask
        self._fresh_seconds = fresh_seconds
        self._lock = threading.Lock()
        self._answered_at = float("-inf")
        self._answer: Future[T] | None = None

    def begin(self) -> "Future[T]":
        """The answer on its way, or the last one while it is at most `fresh_seconds` old.

        Its `result(timeout)` raises TimeoutError, or what `ask` raised.
        """
        with self._lock:
            answer = self._answer
            if answer is None or (answer.done() and time.monotonic() - self._answered_at > self._fresh_seconds):
                answer = self._answer = Future()
                threading.Thread(target=self._run, args=(answer,), daemon=True).start()
            return answer

    def _run(self, answer: "Future[T]") -> None:
        try:
            found = self._ask()
        except BaseException as error:
            self._answered_at = time.monotonic()
            answer.set_exception(error)
        else:
            self._answered_at = time.monotonic()
            answer.set_result(found)
