"""The claim store in Redis: records under keys that expire, results in a list for each bridge."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

import orjson
import redis

from tasks.claim_check import Claim, ClaimStatus, Result
from tasks.config import tls
from tasks.observability import events
from tasks.seal import FIELD, Seal

EXPIRY_SECONDS = 3600  # of every key, so that a bridge that dies leaves nothing in Redis
HEARTBEAT_SECONDS = 1.0  # between heartbeats of a worker
_HEARTBEAT_EXPIRY_SECONDS = 5  # a worker without a heartbeat for this long is lost, and its batches are redelivered
_SOCKET_TIMEOUT_SECONDS = 5.0
_REFUSALS = ("invalid username-password", "WRONGPASS", "NOAUTH", "Authentication required", "NOPERM")


class RedisClaimStore:
    """The claim store in Redis; see ClaimStore. `worker` names the process that takes batches and sends heartbeats."""

    def __init__(self, redis_url: str, seal: Seal, worker: str = "") -> None:
        self._seal = seal
        self._worker = f"backend:worker:{worker}"
        self._redis: redis.Redis = redis.Redis.from_url(
            redis_url,
            socket_timeout=_SOCKET_TIMEOUT_SECONDS,
            socket_connect_timeout=_SOCKET_TIMEOUT_SECONDS,
            health_check_interval=30,
        )

    def put(self, claim: Claim, packed: bytes) -> None:
        self._redis.set(claim.key, packed, ex=EXPIRY_SECONDS)

    def send_heartbeat(self) -> None:
        self._redis.set(self._worker, b"", ex=_HEARTBEAT_EXPIRY_SECONDS)

    def take(self, claim: Claim) -> bytes | None:
        pipe = self._redis.pipeline(transaction=True)
        pipe.get(claim.key)
        pipe.set(_taken(claim), self._worker, ex=EXPIRY_SECONDS)
        return cast("bytes | None", pipe.execute()[0])

    def mark_decoded(self, claim: Claim) -> None:
        self._redis.set(_decoded(claim), b"", ex=EXPIRY_SECONDS)

    def is_decoding(self, claim: Claim) -> bool:
        pipe = self._redis.pipeline(transaction=True)
        pipe.exists(claim.key)
        pipe.exists(_decoded(claim))
        return bool(pipe.execute() == [1, 0])

    def discard(self, claim: Claim) -> None:
        self._redis.delete(*_keys(claim))

    def report(self, claim: Claim, result: Result) -> None:
        pipe = self._redis.pipeline(transaction=True)
        fields = asdict(result)
        pipe.rpush(claim.reply_to, orjson.dumps({**fields, FIELD: self._seal.of(fields)}))
        pipe.expire(claim.reply_to, EXPIRY_SECONDS)
        pipe.delete(*_keys(claim))
        pipe.execute()

    def results(self, reply_to: str, wait_seconds: float) -> list[Result]:
        raw: list[bytes] = []
        if wait_seconds > 0:
            first = cast("tuple[bytes, bytes] | None", self._redis.blpop([reply_to], timeout=wait_seconds))
            if first is None:
                return []
            raw.append(first[1])
        raw += cast("list[bytes] | None", self._redis.lpop(reply_to, 1000)) or []
        return [Result.of(fields) for fields in map(orjson.loads, raw) if self._is_sealed(fields)]

    def _is_sealed(self, fields: dict[str, Any]) -> bool:
        if not self._seal.fits(fields):
            events.emit("result.forged", batch=fields.get("batch"))
            return False
        return True

    def length(self, queue: str) -> int:
        return self._redis.llen(queue)

    def status(self, claims: Sequence[Claim]) -> list[ClaimStatus]:
        pipe = self._redis.pipeline(transaction=False)
        for claim in claims:
            pipe.exists(claim.key)
            pipe.get(_taken(claim))
        replies = pipe.execute()
        takers = [replies[place] for place in range(1, len(replies), 2)]
        for taker in takers:
            pipe.exists(taker or b"")
        alive = pipe.execute()
        return [
            "lost" if not there else "waiting" if taker is None else "taken" if living else "lost"
            for there, taker, living in zip(replies[::2], takers, alive, strict=True)
        ]


def _taken(claim: Claim) -> str:
    return f"{claim.key}:taken"


def _decoded(claim: Claim) -> str:
    return f"{claim.key}:decoded"


def _keys(claim: Claim) -> tuple[str, str, str]:
    return claim.key, _taken(claim), _decoded(claim)


def explain(error: Exception) -> str:
    """The error of redis-py or kombu as a sentence that names the setting, if a setting is the cause."""
    reason = tls.distrust(error)
    if reason is not None:
        return f"the certificate of Redis is not trusted (REDIS_SSL_CA_FILE): {reason}"
    text = str(error)
    if any(sign in text for sign in _REFUSALS):
        return f"Redis refused the user or password of --redis-url / REDIS_URL: {text}"
    return text
