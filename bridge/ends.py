"""Where the partitions end in Kafka, asked in a thread of its own: a bridge that holds back lags on."""

import threading
from collections.abc import Collection, Mapping

from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from bridge.clients import new_asker
from tasks.errors import Unavailable
from tasks.settings import Settings

_SECONDS = 5.0  # between two questions; Prometheus asks less often


class Ends(threading.Thread):
    """Asks again and again for the partitions given last; an outage of Kafka only makes the answer old."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="ends", daemon=True)
        self._settings = settings
        self._wanted: frozenset[TopicPartition] = frozenset()
        self._news = threading.Event()
        self._known: Mapping[TopicPartition, int] = {}

    def of(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The next offset of each partition, as far as it is known; to be asked for from now on."""
        wanted = frozenset(partitions)
        if wanted != self._wanted:
            self._wanted = wanted
            self._news.set()
        return self._known

    def run(self) -> None:
        """Ask until the process ends."""
        client = None
        while True:
            self._news.wait(_SECONDS)
            self._news.clear()
            try:
                client = client or new_asker(self._settings)
                self._known = client.end_offsets(list(self._wanted)) if self._wanted else {}
            except (Unavailable, KafkaError):
                continue
