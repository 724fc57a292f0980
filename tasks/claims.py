"""How a batch travels: its records lie in Redis under a claim, the Celery task carries the claim alone.

This is the claim-check pattern. Put into the task itself, the records would pass base64 and JSON four
times and lie in Redis twice more (Celery keeps unacknowledged tasks); measured in DECISIONS.md.
Everything here may vanish at any moment: the bridge then hands the batch over again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any, Literal, cast

import msgpack
import orjson
import redis

from tasks import tls
from tasks.envelope import Record

EXPIRY_SECONDS = 3600  # of everything we leave in Redis, so that a bridge that dies leaves nothing behind
BEAT_SECONDS = 1.0  # between two signs of life of a worker
_BEAT_EXPIRY_SECONDS = 5  # without one for so long, what it has is handed over again
_SOCKET_TIMEOUT_SECONDS = 5.0
_REFUSALS = ("invalid username-password", "WRONGPASS", "NOAUTH", "Authentication required", "NOPERM")
_carried = attrgetter("offset", "timestamp", "key", "value", "headers")

Outcome = Literal["stored", "failed", "killed"]
Whereabouts = Literal["waiting", "taken", "lost"]


@dataclass(frozen=True)
class Claim:
    """What a task needs to fetch a batch and to say what became of it. All of it is JSON."""

    batch: str
    attempt: int  # 1 when handed over first
    topic: str
    partition: int
    first_offset: int
    last_offset: int
    records: int
    reply_to: str
    bury: str = ""  # why its only record goes to dead_letter undecoded
    traceparent: str = ""  # of its hand-over, where there are traces

    def fields(self) -> dict[str, Any]:
        """The claim as the task's argument."""
        return asdict(self)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Claim":
        """The claim in a task's argument. What it does not know it leaves: a newer bridge may say more."""
        return cls(**{name: given[name] for name in cls.__dataclass_fields__ if name in given})

    def place(self) -> dict[str, Any]:
        """The fields that log lines show, so that a batch, or an offset, can be followed."""
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
        """Where the records lie; one key for each attempt, so that a stale task finds nothing."""
        return f"backend:batch:{self.batch}:{self.attempt}"


@dataclass(frozen=True)
class Result:
    """What became of a batch.

    `failed` may succeed later, or may have succeeded without an answer. `killed`: before it reached PostgreSQL it
    ended its worker, held it too long, or raised an error that nobody foresaw, so that one of its records is to blame.
    """

    batch: str
    attempt: int
    outcome: Outcome
    stored: int = 0
    redelivered: int = 0
    duplicates: int = 0
    dead: int = 0
    counted: int = 0  # of the dead letters, those that speak against the partition
    reason: str = ""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Result":
        """The result in a worker's report. What it does not know it leaves: a newer worker may say more."""
        return cls(**{name: given[name] for name in cls.__dataclass_fields__ if name in given})


def pack(records: Sequence[Any]) -> bytes:
    """Records of one partition as msgpack: [offset, timestamp, key, value, headers] each.

    Takes anything with those attributes, so that the Kafka client's own records need no conversion.
    """
    return cast(bytes, msgpack.packb(list(map(_carried, records))))


def unpack(claim: Claim, packed: bytes) -> list[Record]:
    """The records of `pack`, with the place that the claim knows."""
    topic, partition = claim.topic, claim.partition
    rows = msgpack.unpackb(packed, use_list=False)
    return [Record(topic, partition, *row) for row in rows]


def halves(claim: Claim, packed: bytes) -> tuple[list[Record], list[Record]]:
    """The records of a batch in two parts, in order."""
    records = unpack(claim, packed)
    middle = len(records) // 2
    return records[:middle], records[middle:]


def explain(error: Exception) -> str:
    """What redis-py or kombu said, in a sentence that names the setting where ours is to blame."""
    reason = tls.distrust(error)
    if reason is not None:
        return f"the certificate of Redis is not trusted (REDIS_SSL_CA_FILE): {reason}"
    said = str(error)
    if any(sign in said for sign in _REFUSALS):
        return f"Redis refused the user or password of --redis-url / REDIS_URL: {said}"
    return said


class ClaimDesk:
    """Where bridge and workers meet: batches are deposited and collected, results reported and read.

    Every method raises redis.RedisError while Redis is away.
    """

    def __init__(self, redis_url: str, worker: str = "") -> None:
        self._worker = f"backend:worker:{worker}"
        self._redis: redis.Redis = redis.Redis.from_url(
            redis_url,
            socket_timeout=_SOCKET_TIMEOUT_SECONDS,
            socket_connect_timeout=_SOCKET_TIMEOUT_SECONDS,
            health_check_interval=30,
        )

    def deposit(self, claim: Claim, packed: bytes) -> None:
        """Keep a batch's records for its worker."""
        self._redis.set(claim.key, packed, ex=EXPIRY_SECONDS)

    def beat(self) -> None:
        """Give this worker's sign of life."""
        self._redis.set(self._worker, b"", ex=_BEAT_EXPIRY_SECONDS)

    def collect(self, claim: Claim) -> bytes | None:
        """A batch's records, taken by this worker; None when the claim is stale or Redis lost them."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.get(claim.key)
        pipe.set(_taken(claim), self._worker, ex=EXPIRY_SECONDS)
        return cast("bytes | None", pipe.execute()[0])

    def storing(self, claim: Claim) -> None:
        """Note that the records are decoded, and that from here on PostgreSQL is what is waited for."""
        self._redis.set(_storing(claim), b"", ex=EXPIRY_SECONDS)

    def was_decoding(self, claim: Claim) -> bool:
        """Whether the batch surely had not got as far as PostgreSQL; not if Redis has lost what would say so."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.exists(claim.key)
        pipe.exists(_storing(claim))
        return bool(pipe.execute() == [1, 0])

    def discard(self, claim: Claim) -> None:
        """Make a claim stale: a task that still carries it finds nothing to do."""
        self._redis.delete(*_keys(claim))

    def report(self, claim: Claim, result: Result) -> None:
        """Tell the bridge what became of its batch, and drop the batch's records."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.rpush(claim.reply_to, orjson.dumps(asdict(result)))
        pipe.expire(claim.reply_to, EXPIRY_SECONDS)
        pipe.delete(*_keys(claim))
        pipe.execute()

    def results(self, reply_to: str, wait_seconds: float) -> list[Result]:
        """Every result reported since the last call; waits up to `wait_seconds` for a first one."""
        raw: list[bytes] = []
        if wait_seconds > 0:
            first = cast("tuple[bytes, bytes] | None", self._redis.blpop([reply_to], timeout=wait_seconds))
            if first is None:
                return []
            raw.append(first[1])
        raw += cast("list[bytes] | None", self._redis.lpop(reply_to, 1000)) or []
        return [Result.of(orjson.loads(line)) for line in raw]

    def unread(self, queue: str) -> int:
        """How many results, or tasks, wait in a list of Redis to be read."""
        return self._redis.llen(queue)

    def whereabouts(self, claims: Sequence[Claim]) -> list[Whereabouts]:
        """Where each batch is: it waits for a worker, a living worker has it, or it is lost.

        Lost are those whose worker gives no sign of life, and those whose records are gone: reported, or
        lost by Redis.
        """
        pipe = self._redis.pipeline(transaction=False)
        for claim in claims:
            pipe.exists(claim.key)
            pipe.get(_taken(claim))
        answers = pipe.execute()
        takers = [answers[place] for place in range(1, len(answers), 2)]
        for taker in takers:
            pipe.exists(taker or b"")
        alive = pipe.execute()
        return [
            "lost" if not there else "waiting" if taker is None else "taken" if living else "lost"
            for there, taker, living in zip(answers[::2], takers, alive, strict=True)
        ]


def _taken(claim: Claim) -> str:
    return f"{claim.key}:taken"


def _storing(claim: Claim) -> str:
    return f"{claim.key}:storing"


def _keys(claim: Claim) -> tuple[str, str, str]:
    return claim.key, _taken(claim), _storing(claim)
