"""The lag of the consumer group in each partition: end offset, committed offset, age of the oldest record."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bridge.kafka.cluster import Cluster
from bridge.kafka.single_flight import SingleFlight
from bridge.kafka.types import Committed, TopicPartition
from tasks.config.settings import Settings
from tasks.errors import Unavailable
from tasks.message import produced_at

_FRESH_SECONDS = 1.0  # however many clients ask, Kafka gets one request a second
_READ_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Lag:
    """The lag of a partition: its first and end offset, the committed offset, the records between, their greatest age.

    `seconds` is None if there are no such records, or if the oldest one has no timestamp or could not be read in time.
    """

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    committed: int | None
    records: int
    seconds: float | None


class Lags:
    """Requests the lag with its own clients, for any number of threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._flight = SingleFlight(self._ask, _FRESH_SECONDS)
        self._cluster: Cluster | None = None  # made by the first request: after a server has forked

    def now(self) -> list[Lag]:
        """The lag of every partition of the configured topics, at most a second old.

        Raises Unavailable, within 5 seconds.
        """
        try:
            return self._flight.begin().result(_PATIENCE_SECONDS)
        except TimeoutError:
            raise Unavailable("Kafka did not report its end offsets in time") from None

    def _ask(self) -> list[Lag]:
        if self._cluster is None:
            self._cluster = Cluster(self._settings)
            self._cluster.respond()  # says sooner than the other requests that no broker is there
        cluster = self._cluster
        partitions = [
            TopicPartition(topic.name, number)
            for topic in cluster.topics(self._settings.consumed_topics)
            for number in range(topic.partitions)
        ]
        first, ends = cluster.first_offsets(partitions), cluster.end_offsets(partitions)
        known = [partition for partition in partitions if partition in first and partition in ends]
        return list(_lags(cluster, known, first, ends, cluster.committed(known)))


def _lags(
    cluster: Cluster,
    partitions: Sequence[TopicPartition],
    first: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    committed: Mapping[TopicPartition, Committed],
) -> Iterable[Lag]:
    # Without a commit the group starts at the beginning; deleted records are not read any more.
    offsets = {partition: entry.offset for partition, entry in committed.items()}
    begins = {p: max(offsets.get(p, 0), first[p]) for p in partitions}
    made = cluster.timestamps({p: begins[p] for p in partitions if begins[p] < ends[p]}, _READ_SECONDS)
    now = datetime.now(UTC).timestamp()
    for p in partitions:
        timestamp = produced_at(made[p]) if p in made else None
        seconds = None if timestamp is None else max(0.0, now - timestamp / 1000)
        records = max(0, ends[p] - begins[p])
        yield Lag(p.topic, p.partition, first[p], ends[p], offsets.get(p), records, seconds)
