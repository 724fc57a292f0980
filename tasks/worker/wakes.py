"""Names of tasks that have something to run, passed through Redis. They only save time: a lost one is found anyway."""

from collections.abc import Collection
from typing import cast

import redis

from tasks.config.settings import Settings

_MOST = 1000  # that wait, if no worker reads them
_SOCKET_TIMEOUT_SECONDS = 5.0


class Wakes:
    """A list in Redis for each consumer group. Every method raises redis.RedisError while Redis is unavailable."""

    def __init__(self, settings: Settings) -> None:
        self._key = f"backend:wakes:{settings.kafka_group_id}"
        self._redis: redis.Redis = redis.Redis.from_url(
            settings.redis_url or "",
            socket_timeout=_SOCKET_TIMEOUT_SECONDS,
            socket_connect_timeout=_SOCKET_TIMEOUT_SECONDS,
        )

    def send(self, tasks: Collection[str]) -> None:
        """Say that these tasks have something to run."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.lpush(self._key, *tasks)
        pipe.ltrim(self._key, 0, _MOST - 1)
        pipe.execute()

    def wait(self, seconds: float) -> set[str]:
        """The tasks that were named since the last call; waits up to `seconds` for the first."""
        first = cast("tuple[bytes, bytes] | None", self._redis.brpop([self._key], timeout=seconds))
        if first is None:
            return set()
        more = cast("list[bytes] | None", self._redis.rpop(self._key, _MOST)) or []
        return {name.decode() for name in (first[1], *more)}

    def length(self, queue: str) -> int:
        """The number of queued Celery tasks."""
        return self._redis.llen(queue)
