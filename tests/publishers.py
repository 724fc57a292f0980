"""A publisher without a server, for tests of the API. It obeys the laws in tests/integration/test_publisher.py."""

import threading
from collections.abc import Callable

from bridge.publisher import Place
from tasks.envelope import Headers, Record


class MemoryPublisher:
    """Keeps messages in a list, one partition a topic; raises `failure` when it is set."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.failure: Exception | None = None
        self._lock = threading.Lock()

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> Callable[[], Place]:
        if self.failure is not None:
            raise self.failure
        place = self._keep(topic, key, value, headers)
        return lambda: place

    def _keep(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> Place:
        with self._lock:
            offset = sum(record.topic == topic for record in self.records)
            self.records.append(Record(topic, 0, offset, 0, key, value, headers))
        return Place(topic, 0, offset)

    def wrong(self) -> str | None:
        return None if self.failure is None else str(self.failure)
