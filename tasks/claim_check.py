"""How a batch travels: its records are in Redis under a key, and the Celery task carries only the claim.

This is the claim-check pattern. Inside the task, the records would pass base64 and JSON four
times, and Redis would hold them twice more, because Celery keeps unacknowledged tasks
(docs/decisions/0003-one-task-one-batch.md).
Everything here may vanish at any time: the bridge then redelivers the batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any, Literal, Protocol, cast

import msgpack

from tasks.message import Record

_carried = attrgetter("offset", "timestamp", "key", "value", "headers")

Outcome = Literal["stored", "failed", "killed"]
ClaimStatus = Literal["waiting", "taken", "lost"]


@dataclass(frozen=True)
class Claim:
    """What a task needs to fetch a batch and to report its result. Every field is JSON."""

    batch: str
    attempt: int  # 1 for the first delivery
    topic: str
    partition: int
    first_offset: int
    last_offset: int
    records: int
    reply_to: str
    # Of these, a bridge that is older than this worker sends none; its seal does not fit then (`Persist`).
    topic_id: str = ""
    begin: int = -1  # where the batch before ended: no record lies between it and the first one
    dead_letter_reason: str = ""  # if set, its only record becomes a dead letter without being decoded
    traceparent: str = ""  # of the bridge's span, if tracing is on
    seal: str = ""  # of the other fields and the records, see tasks/seal.py

    def fields(self) -> dict[str, Any]:
        """The claim as the task's argument."""
        return asdict(self)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Claim":
        """The claim in a task's argument. Unknown fields are ignored: a newer bridge may send more."""
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__ if name in fields})

    def place(self) -> dict[str, Any]:
        """The fields of log lines, so that a batch or an offset can be followed."""
        return {
            "batch": self.batch,
            "attempt": self.attempt,
            "topic": self.topic,
            "partition": self.partition,
            "first_offset": self.first_offset,
            "last_offset": self.last_offset,
            "records": self.records,
        }

    @property
    def key(self) -> str:
        """The Redis key of the records; each attempt has its own, so that a stale task finds nothing."""
        return f"backend:batch:{self.batch}:{self.attempt}"


@dataclass(frozen=True)
class Result:
    """The result of an attempt to store a batch.

    `failed`: it may succeed later, or has succeeded without a response. `killed`: before it reached PostgreSQL it
    ended its worker, exceeded the deadline, or raised an unexpected error, so one of its records is the cause.
    """

    batch: str
    attempt: int
    outcome: Outcome
    stored: int = 0
    redelivered: int = 0
    duplicates: int = 0
    dead: int = 0
    counted: int = 0  # the dead letters that count towards the partition's limit
    reason: str = ""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Result":
        """The result in a worker's report. Unknown fields are ignored: a newer worker may send more."""
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__ if name in fields})


def pack(records: Sequence[Any]) -> bytes:
    """Records of one partition as msgpack: [offset, timestamp, key, value, headers] each.

    Accepts any object with those attributes, so that the Kafka client's own records need no conversion.
    """
    return cast(bytes, msgpack.packb(list(map(_carried, records))))


def unpack(claim: Claim, packed: bytes) -> list[Record]:
    """The records that `pack` packed, with the topic and partition of the claim."""
    topic, partition = claim.topic, claim.partition
    rows = msgpack.unpackb(packed, use_list=False)
    return [Record(topic, partition, *row) for row in rows]


def halves(claim: Claim, packed: bytes) -> tuple[list[Record], list[Record]]:
    """The records of a batch in two parts, in order."""
    records = unpack(claim, packed)
    middle = len(records) // 2
    return records[:middle], records[middle:]


class ClaimStore(Protocol):
    """The batches and results that bridge and workers exchange.

    Every method raises redis.RedisError while the store is unavailable. It may lose everything at any time.
    """

    def put(self, claim: Claim, packed: bytes) -> None:
        """Keep the records of a batch for its worker."""

    def take(self, claim: Claim) -> bytes | None:
        """The records of a batch, which this worker takes; None if the claim is stale or its records are lost."""

    def mark_decoded(self, claim: Claim) -> None:
        """Record that the batch is decoded, and that its worker now waits for PostgreSQL."""

    def is_decoding(self, claim: Claim) -> bool:
        """Whether the batch is certainly still being decoded; False if the store has lost that information."""

    def discard(self, claim: Claim) -> None:
        """Make a claim stale: a task that still carries it finds no records."""

    def report(self, claim: Claim, result: Result) -> None:
        """Send the result of a batch to its bridge, and delete the batch's records."""

    def results(self, reply_to: str, wait_seconds: float) -> list[Result]:
        """Every result since the last call, in order; waits up to `wait_seconds` for the first."""

    def length(self, queue: str) -> int:
        """The number of unread results, or of queued tasks."""

    def status(self, claims: Sequence[Claim]) -> list[ClaimStatus]:
        """Where each batch is: it waits for a worker, a worker has taken it, or it is lost.

        A batch is lost if its worker sends no heartbeat, or if its records are gone: reported, or lost by the store.
        """

    def send_heartbeat(self) -> None:
        """Show that this worker is alive."""
