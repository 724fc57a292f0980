"""Clients that post messages, each by a connection of its own, and remember what came of it."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

import requests

REFUSED = "refused"  # nobody listened there: what a rollout must never show a client
BROKEN = "broken"


class Load:
    """Posts from `clients` threads until it is left; `where` gives the address of each request anew."""

    def __init__(self, where: Callable[[], str], clients: int) -> None:
        self._where = where
        self.accepted: set[str] = set()
        self.statuses: Counter[int | str] = Counter()
        self.latencies: list[float] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]

    def __enter__(self) -> "Load":
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()
        self._ended = time.monotonic()

    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def summary(self) -> str:
        """One line of figures."""
        rate = len(self.accepted) / (self._ended - self._began)
        slow = sorted(self.latencies)[int(len(self.latencies) * 0.99)] * 1000
        return f"{rate:.0f} messages/s accepted, p99 {slow:.0f} ms, answers {dict(self.statuses)}"

    def _send(self) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            status, message_id = _post(f"{self._where()}/messages")
            with self._lock:
                self.latencies.append(time.monotonic() - began)
                self.statuses[status] += 1
                if message_id is not None:
                    self.accepted.add(message_id)


def _post(url: str) -> tuple[int | str, str | None]:
    try:
        answer = requests.post(url, json={"type": "load"}, timeout=30)
    except requests.ConnectionError as error:
        return (REFUSED if "refused" in str(error).lower() else BROKEN), None
    body: Any = answer.json()
    return answer.status_code, body["id"] if answer.status_code == 202 else None
