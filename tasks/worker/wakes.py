"""Names of tasks that have something to run, passed through Redis. They only save time: a lost one is found anyway."""

from collections.abc import Collection, Sequence
from typing import cast

import redis

from tasks.config.settings import Settings

_MOST = 16  # of one task that wait, if no worker reads them
_SOCKET_TIMEOUT_SECONDS = 5.0


class Wakes:
    """A list in Redis for each task of a consumer group. Every method raises redis.RedisError without Redis."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = f"backend:wakes:{settings.kafka_group_id}:"
        self._redis: redis.Redis = redis.Redis.from_url(
            settings.redis_url or "",
            socket_timeout=_SOCKET_TIMEOUT_SECONDS,
            socket_connect_timeout=_SOCKET_TIMEOUT_SECONDS,
        )

    def send(self, tasks: Collection[str]) -> None:
        """Say that these tasks have something to run."""
        pipe = self._redis.pipeline(transaction=False)
        for task in tasks:
            pipe.lpush(self._prefix + task, b"")
            pipe.ltrim(self._prefix + task, 0, _MOST - 1)
        pipe.execute()

    def wait(self, tasks: Sequence[str], seconds: float) -> set[str]:
        """Those of `tasks` that were named since the last call; waits up to `seconds` for the first."""
        keys = [self._prefix + task for task in tasks]
        first = cast("tuple[bytes, bytes] | None", self._redis.brpop(keys, timeout=seconds))
        if first is None:
            return set()
        pipe = self._redis.pipeline(transaction=False)
        for key in keys:
            pipe.rpop(key, _MOST)
        more = {task for task, found in zip(tasks, pipe.execute(), strict=True) if found}
        return more | {first[0].decode().removeprefix(self._prefix)}

    def length(self, queues: Sequence[str]) -> int:
        """The number of Celery tasks in these queues."""
        pipe = self._redis.pipeline(transaction=False)
        for queue in queues:
            pipe.llen(queue)
        return sum(pipe.execute())
