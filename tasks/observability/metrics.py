"""The catalogue of metrics, with kind, unit, labels and meaning, and their export.

A label has few values, known in advance: topics, routes, reasons, partitions. Never an id, a key or free text.
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

from tasks.observability import multiprocess

CATALOGUE: "dict[str, Metric]" = {}
_registry = CollectorRegistry()
_making = threading.Lock()


class Metric:
    """A metric: its name without the prefix, its unit, a sentence, and the names of its labels."""

    kind: ClassVar[str]

    def __init__(self, name: str, unit: str, meaning: str, *labels: str) -> None:
        self.name = f"backend_{name}"
        self.unit = unit
        self.meaning = meaning
        self.labels = labels
        self._made: Any = None
        self._children: dict[tuple[str, ...], Any] = {}  # looking them up in the library costs more than counting
        CATALOGUE[self.name] = self

    def _of(self, labels: tuple[str, ...]) -> Any:
        """The library's object. It is created late, because the directory of its values is known late."""
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
    """A number that only grows."""

    kind = "counter"

    def add(self, amount: float, *labels: str) -> None:
        """Add `amount`."""
        self._of(labels).inc(amount)

    def _make(self) -> Any:
        return prometheus_client.Counter(self.name, self.meaning, self.labels, registry=_registry)


class Gauge(Metric):
    """A current value, which ends with its process."""

    kind = "gauge"

    def set(self, value: float, *labels: str) -> None:
        """Set the value."""
        self._of(labels).set(value)

    def _make(self) -> Any:
        return prometheus_client.Gauge(
            self.name, self.meaning, self.labels, registry=_registry, multiprocess_mode="livesum"
        )


class Histogram(Metric):
    """Counts values by size; `buckets` are the upper bounds of the size classes."""

    kind = "histogram"

    def __init__(self, name: str, unit: str, meaning: str, *labels: str, buckets: Sequence[float]) -> None:
        super().__init__(name, unit, meaning, *labels)
        self._buckets = buckets

    def observe(self, value: float, *labels: str) -> None:
        """Add a value."""
        self._of(labels).observe(value)

    def _make(self) -> Any:
        return prometheus_client.Histogram(
            self.name, self.meaning, self.labels, registry=_registry, buckets=self._buckets
        )


_QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_RECORDS = (1, 10, 100, 250, 500, 1000, 2000, 5000, 10000)
_BYTES = (1e3, 1e4, 1e5, 2.5e5, 5e5, 1e6, 2e6, 5e6, 1e7)

ACCEPTED = Counter(
    "messages_accepted_total", "messages", "Messages received over HTTP and acknowledged by Kafka", "topic"
)
PROBLEMS = Counter("http_problems_total", "responses", "Responses that were problems, by problem type", "problem")
REQUESTS = Counter("http_requests_total", "requests", "Requests handled", "route", "method", "status")
REQUEST_SECONDS = Histogram(
    "http_request_seconds", "seconds", "Duration of a request", "route", "method", buckets=_QUICK
)
PUBLISH_SECONDS = Histogram(
    "publish_seconds", "seconds", "Time until Kafka acknowledged the messages of a request", "topic", buckets=_QUICK
)

RUNS = Counter(
    "task_runs_total", "runs", "Runs of users' tasks that ended: done, retrying or failed", "task", "outcome"
)

TASK_WAITING = Gauge(
    "task_waiting_messages",
    "messages",
    "Messages that a users' task has still to run for, the same in each bridge",
    "task",
)
TASK_OLDEST = Gauge("task_oldest_waiting_seconds", "seconds", "Time since the oldest of them was stored", "task")
TASK_PAUSED = Gauge("task_paused", "0 or 1", "A users' task that is paused", "task")

CONSUMED = Counter("records_consumed_total", "records", "Records that the bridge read from Kafka", "topic")
HANDED_OVER = Counter("batches_handed_over_total", "batches", "Batches handed to Celery for the first time", "topic")
REDELIVERED_BATCHES = Counter("batches_redelivered_total", "batches", "Batches handed to Celery again", "topic")
BATCH_RECORDS = Histogram("batch_records", "records", "Records in a stored batch", "topic", buckets=_RECORDS)
BATCH_BYTES = Histogram("batch_bytes", "bytes", "Size of a stored batch", "topic", buckets=_BYTES)
BATCH_SECONDS = Histogram(
    "batch_seconds", "seconds", "Time from a batch's last delivery to Celery until it is stored", "topic", buckets=_SLOW
)
IN_FLIGHT = Gauge("in_flight_batches", "batches", "Batches in flight: read and not yet stored")
IN_FLIGHT_BYTES = Gauge("in_flight_bytes", "bytes", "Bytes in flight: read and not yet stored")
LAG = Gauge("lag_records", "records", "Records of an assigned partition that are not stored yet", "topic", "partition")
BACKPRESSURE = Gauge(
    "bridge_backpressure",
    "1 or 0",
    "1 for each reason that keeps the bridge from reading some or all partitions",
    "reason",
)
BACKPRESSURE_SECONDS = Counter(
    "bridge_backpressure_seconds_total",
    "seconds",
    "Time in which the bridge did not read some or all partitions",
    "reason",
)
QUARANTINED = Gauge(
    "partitions_quarantined", "partitions", "Assigned partitions that are quarantined because of too many dead letters"
)
FETCHED_BYTES = Gauge(
    "kafka_fetched_bytes", "bytes", "Bytes that librdkafka has fetched and the bridge has not read yet; at most 12 MiB"
)
KAFKA_SECONDS = Gauge(
    "kafka_response_seconds", "seconds", "Average time until a broker responds to the bridge", "broker"
)
LOST = Counter("records_lost_total", "records", "Offsets that Kafka deleted before the group read them", "topic")

STORED = Counter("messages_stored_total", "messages", "Messages committed to PostgreSQL", "topic")
REDELIVERED = Counter(
    "records_redelivered_total", "records", "Records read from Kafka again that were stored before", "topic"
)
DUPLICATES = Counter(
    "messages_duplicate_total", "messages", "Messages sent again by their sender, with the same id and content", "topic"
)
DEAD = Counter("dead_letters_total", "records", "Records committed to dead_letter", "topic", "reason")
END_TO_END_SECONDS = Histogram(
    "end_to_end_seconds",
    "seconds",
    "Time from the timestamp of a batch's oldest record to the batch's commit",
    "topic",
    buckets=_SLOW,
)

BUILD = Gauge("build_info", "processes", "Running processes, by version", "version")


class _Pod(Collector):
    """The values of all processes that share a directory, including those that have ended."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Family]:
        multiprocess.forget_dead(self._directory)
        families: Iterable[Family] = MultiProcessCollector(None, str(self._directory)).collect()
        return families


def join(directory: str | None, version: str) -> None:
    """Share the values with the other processes of the pod; without a directory, keep them in this process.

    Call it once in each process, after its last fork and before anything is counted. Raises OSError if the
    directory cannot be written to; the values then stay in this process, and nothing else fails.
    """
    try:
        if directory is not None:
            number = multiprocess.take(Path(directory))
            values.ValueClass = values.MultiProcessValue(lambda: number)
    finally:
        BUILD.set(1, version)


def readable(directory: str | None) -> CollectorRegistry:
    """The registry to export: of the whole pod, or, without a directory, of this process."""
    if directory is None:
        return _registry
    registry = CollectorRegistry()
    registry.register(_Pod(Path(directory)))
    return registry


def exposition(directory: str | None, accept: str) -> tuple[bytes, str]:
    """All metrics as text, and the content type: OpenMetrics if `accept` asks for it."""
    encode, content_type = choose_encoder(accept)
    return encode(readable(directory)), content_type
