"""What the system counts of itself: every metric with kind, unit, labels and meaning.

Labels have few values, known beforehand: topics, routes, reasons, partitions. Never an id, a key or free text.
"""

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import prometheus_client
from prometheus_client import CollectorRegistry, values
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from tasks import slots

CATALOGUE: "dict[str, Metric]" = {}
_registry = CollectorRegistry()
_making = threading.Lock()


class Metric:
    """A metric by its name without prefix, unit, one sentence, and the names of its labels."""

    kind: ClassVar[str]

    def __init__(self, name: str, unit: str, meaning: str, *labels: str) -> None:
        self.name = f"backend_{name}"
        self.unit = unit
        self.meaning = meaning
        self.labels = labels
        self._made: Any = None
        self._children: dict[tuple[str, ...], Any] = {}  # the library's own way to them costs more than counting
        CATALOGUE[self.name] = self

    def _of(self, labels: tuple[str, ...]) -> Any:
        """The library's own object; made late, because where its values lie is known late."""
        if self._made is None:
            with _making:
                self._made = self._made or self._make()
        if not labels:
            return self._made
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._made.labels(*labels)
        return child

    def _make(self) -> Any:
        raise NotImplementedError


class Counter(Metric):
    """Only grows."""

    kind = "counter"

    def add(self, amount: float, *labels: str) -> None:
        """Count `amount` more."""
        self._of(labels).inc(amount)

    def _make(self) -> Any:
        return prometheus_client.Counter(self.name, self.meaning, self.labels, registry=_registry)


class Gauge(Metric):
    """What is now; gone with its process."""

    kind = "gauge"

    def set(self, value: float, *labels: str) -> None:
        """Say what is."""
        self._of(labels).set(value)

    def _make(self) -> Any:
        return prometheus_client.Gauge(
            self.name, self.meaning, self.labels, registry=_registry, multiprocess_mode="livesum"
        )


class Histogram(Metric):
    """Counts values by size; `buckets` are the upper bounds."""

    kind = "histogram"

    def __init__(self, name: str, unit: str, meaning: str, *labels: str, buckets: Sequence[float]) -> None:
        super().__init__(name, unit, meaning, *labels)
        self._buckets = buckets

    def observe(self, value: float, *labels: str) -> None:
        """Count a value."""
        self._of(labels).observe(value)

    def _make(self) -> Any:
        return prometheus_client.Histogram(
            self.name, self.meaning, self.labels, registry=_registry, buckets=self._buckets
        )


_QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_RECORDS = (1, 10, 100, 250, 500, 1000, 2000, 5000, 10000)
_BYTES = (1e3, 1e4, 1e5, 2.5e5, 5e5, 1e6, 2e6, 5e6, 1e7)

ACCEPTED = Counter("messages_accepted_total", "messages", "Messages that Kafka acknowledged to the API", "topic")
REFUSED = Counter("messages_refused_total", "requests", "Requests answered with a problem, by its type", "problem")
REQUESTS = Counter("http_requests_total", "requests", "Requests answered", "route", "method", "status")
REQUEST_SECONDS = Histogram(
    "http_request_seconds", "seconds", "Time to answer a request", "route", "method", buckets=_QUICK
)
PUBLISH_SECONDS = Histogram(
    "publish_seconds", "seconds", "Time until Kafka acknowledged what a request sent", "topic", buckets=_QUICK
)

CONSUMED = Counter("records_consumed_total", "records", "Records the bridge read from Kafka", "topic")
HANDED_OVER = Counter("batches_handed_over_total", "batches", "Batches handed to Celery for the first time", "topic")
HANDED_OVER_AGAIN = Counter("batches_handed_over_again_total", "batches", "Batches handed to Celery again", "topic")
BATCH_RECORDS = Histogram("batch_records", "records", "Records in a batch that was stored", "topic", buckets=_RECORDS)
BATCH_BYTES = Histogram("batch_bytes", "bytes", "Size of a batch that was stored", "topic", buckets=_BYTES)
BATCH_SECONDS = Histogram(
    "batch_seconds",
    "seconds",
    "Time from a batch's last hand-over to the news that it is stored",
    "topic",
    buckets=_SLOW,
)
IN_FLIGHT = Gauge("in_flight_batches", "batches", "Batches taken and not yet stored")
IN_FLIGHT_BYTES = Gauge("in_flight_bytes", "bytes", "Bytes taken and not yet stored")
LAG = Gauge(
    "lag_records",
    "records",
    "Records of a partition of this bridge that are not known to be stored",
    "topic",
    "partition",
)
HOLDING = Gauge(
    "bridge_holding", "1 or 0", "1 for each reason that the bridge reads nothing, or not all partitions", "reason"
)
HELD_SECONDS = Counter(
    "bridge_held_seconds_total", "seconds", "Time in which the bridge read nothing, or not all partitions", "reason"
)
STOPPED = Gauge("partitions_stopped", "partitions", "Partitions of this bridge that a flood of dead letters stopped")

STORED = Counter("messages_stored_total", "messages", "Messages that workers committed to PostgreSQL", "topic")
REDELIVERED = Counter("records_redelivered_total", "records", "Records read again that were stored already", "topic")
DUPLICATES = Counter(
    "messages_duplicate_total", "messages", "Messages sent again by their sender, with the same id and content", "topic"
)
DEAD = Counter("dead_letters_total", "records", "Records that workers committed to dead_letter", "topic", "reason")
END_TO_END_SECONDS = Histogram(
    "end_to_end_seconds",
    "seconds",
    "Time from the making of a batch's oldest record to its commit",
    "topic",
    buckets=_SLOW,
)

BUILD = Gauge("build_info", "processes", "Processes that measure, by version", "version")


class _Pod(Collector):
    """What all processes that share a directory have counted, the dead ones too."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Family]:
        slots.forget_dead(self._directory)
        families: Iterable[Family] = MultiProcessCollector(None, str(self._directory)).collect()
        return families


def join(directory: str | None, version: str) -> None:
    """Count where the other processes of the pod do; without a directory, in this process alone.

    To be called once in each process, after its last fork and before anything is counted. When the
    directory cannot be written to, counts stay in this process: nothing else may suffer. Raises OSError then.
    """
    try:
        if directory is not None:
            number = slots.take(Path(directory))
            values.ValueClass = values.MultiProcessValue(lambda: number)
    finally:
        BUILD.set(1, version)


def readable(directory: str | None) -> CollectorRegistry:
    """What is to be shown: of the whole pod, or without a directory of this process."""
    if directory is None:
        return _registry
    registry = CollectorRegistry()
    registry.register(_Pod(Path(directory)))
    return registry


def exposition(directory: str | None, accept: str) -> tuple[bytes, str]:
    """All metrics as text, and its content type: OpenMetrics where `accept` asks for it."""
    encode, content_type = choose_encoder(accept)
    return encode(readable(directory)), content_type
