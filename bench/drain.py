"""Drains a topic by a pod, for benchmarks that measure what that costs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench import servers
from tests.world import World

_LONGEST_SECONDS = 600


@contextmanager
def drained(world: World, total: int, **settings: str) -> Iterator[float]:
    """A pod that has stored all up to `total` messages; the seconds from its partitions to its last commit."""
    pod = world.consume(**settings)
    deadline = time.monotonic() + _LONGEST_SECONDS
    while stored(world) < total:
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.25)
    at = servers.logged_at
    yield max(map(at, pod.lines("batch.stored"))) - min(map(at, pod.lines("partitions.assigned")))
    pod.stop()


def stored(world: World) -> int:
    """The number of stored messages, as they were counted."""
    return int(world.sql("SELECT coalesce(sum(messages), 0) FROM message_count")[0][0])
