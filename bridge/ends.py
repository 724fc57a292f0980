"""Where the partitions end in Kafka, asked in a thread of its own.

A bridge that holds back lags on; and a client that delivers nothing any more does not know what it misses.
"""

import contextlib
import threading
import time
from collections.abc import Collection, Mapping

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from bridge.clients import new_asker
from tasks.settings import Settings

_SECONDS = 5.0  # between two questions; Prometheus asks less often
_SILENT_SECONDS = 15.0  # without an answer; the client asks without end and does not say that it asks in vain


class Ends(threading.Thread):
    """Asks again and again for the partitions given last; an outage of Kafka only makes the answer old."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="ends", daemon=True)
        self._settings = settings
        self._wanted: frozenset[TopicPartition] = frozenset()
        self._news = threading.Event()
        self._answer: tuple[float, Mapping[TopicPartition, int]] = (time.monotonic(), {})

    def of(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The next offset of each partition, as far as it is known; to be asked for from now on."""
        wanted = frozenset(partitions)
        if wanted != self._wanted:
            self._wanted = wanted
            self._news.set()
        return self._answer[1]

    def silent(self) -> bool:
        """Whether Kafka, as far as it was asked, has not answered for a while."""
        return time.monotonic() - self._answer[0] > _SILENT_SECONDS

    def undelivered(self, consumer: KafkaConsumer, partitions: Collection[TopicPartition]) -> bool:
        """Whether Kafka lately told of records in one of `partitions` that `consumer` has not returned yet."""
        if self.silent():
            return False
        known = self._answer[1]
        return any(known.get(partition, 0) > _position(consumer, partition) for partition in partitions)

    def run(self) -> None:
        """Ask until the process ends."""
        client: KafkaConsumer = None
        while True:
            self._news.wait(_SECONDS)
            self._news.clear()
            try:
                client = client or new_asker(self._settings)
                ends = client.end_offsets(list(self._wanted)) if self._wanted else {}
                self._answer = time.monotonic(), ends  # at once, for the other thread
            except Exception:  # if this thread ended, Kafka would be taken to be away; a new client may do better
                with contextlib.suppress(Exception):
                    client.close()
                client = None


def _position(consumer: KafkaConsumer, partition: TopicPartition) -> int:
    """The next offset to be returned; 0 before the first fetch is answered, when asking would wait for Kafka."""
    return 0 if consumer.highwater(partition) is None else consumer.position(partition)
