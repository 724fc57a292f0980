"""Clients that post messages, each with its own connection, and record the results."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from types import TracebackType

import requests

REFUSED = "refused"  # no process listened: a rollout must never show that to a client
BROKEN = "broken"
_QUICK_SECONDS = 1.0  # after a slower refusal the address was outdated, because this client had to wait for a CPU


class Load:
    """Posts from `clients` threads while the context is open; `where` returns the address for each request."""

    def __init__(self, where: Callable[[], str], clients: int) -> None:
        self._where = where
        self.accepted: set[str] = set()
        self.unknown: set[str] = set()  # Kafka did not acknowledge them in time: stored or not
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
        """Seconds since the start."""
        return time.monotonic() - self._began

    def summary(self) -> str:
        """A line of figures."""
        rate = len(self.accepted) / (self._ended - self._began)
        slow = sorted(self.latencies)[int(len(self.latencies) * 0.99)] * 1000
        return f"{rate:.0f} messages/s accepted, p99 {slow:.0f} ms, answers {dict(self.statuses)}"

    def _send(self) -> None:
        while not self._ending.is_set():
            message_id = str(uuid.uuid4())
            began = time.monotonic()
            status, problem = _post(f"{self._where()}/messages", message_id)
            took = time.monotonic() - began
            if status == REFUSED and took > _QUICK_SECONDS:
                continue
            with self._lock:
                self.latencies.append(took)
                self.statuses[status] += 1
                if status == 202:
                    self.accepted.add(message_id)
                if problem == "/problems/unknown-outcome":
                    self.unknown.add(message_id)


def _post(url: str, message_id: str) -> tuple[int | str, str | None]:
    """The status of the response, and its problem."""
    try:
        answer = requests.post(url, json={"id": message_id, "type": "load"}, timeout=60)
    except requests.ConnectionError as error:
        return (REFUSED if "refused" in str(error).lower() else BROKEN), None
    return answer.status_code, answer.json().get("type")
