"""A publisher without a server, for tests of the API. It obeys the laws in tests/integration/test_publisher.py."""

import threading
from collections.abc import Callable

from bridge.publisher import Place, Refused
from tasks.envelope import Headers, Record


class MemoryPublisher:
    """Keeps messages in a list; without a partition they go to the first. Raises `failure` when it is set."""

    def __init__(self, partitions: int = 1) -> None:
        self._partitions = partitions
        self.records: list[Record] = []
        self.failure: Exception | None = None
        self._lock = threading.Lock()

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> Callable[[], Place]:
        if self.failure is not None:
            raise self.failure
        place = self._keep(topic, key, value, headers, partition or 0)
        return lambda: place

    def _keep(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int) -> Place:
        if not 0 <= partition < self._partitions:
            raise Refused(f"topic {topic} has no partition {partition}")
        with self._lock:
            offset = sum(record[:2] == (topic, partition) for record in self.records)
            self.records.append(Record(topic, partition, offset, 0, key, value, headers))
        return Place(topic, partition, offset)

    def wrong(self) -> str | None:
        return None if self.failure is None else str(self.failure)
