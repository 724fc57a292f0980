"""The account of the users' tasks of `make chaos`: each obligation has ended once, with the effect that it must.

It compares effects with the rows of `message`. When PostgreSQL goes back, messages, obligations and effects go back
together, and what Kafka still has is stored, and run, again. What Kafka deleted before it was stored obliges nobody.
"""

import time
from collections import Counter
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import psycopg2

from bench.own import chaos
from tasks.declaration import Task
from tasks.store import runs
from tests.world import World

_STORED = "SELECT id::text, type, payload->>'wish' FROM message"
_EFFECTS = "SELECT message::text, count(*) FROM effect WHERE task = %s GROUP BY message"
_FAILED = "SELECT message_id::text, error, attempts FROM run WHERE task = %s AND state = 'failed'"
_OLDEST = """
    SELECT coalesce(extract(epoch FROM now() - least((SELECT min(stored_at) FROM chunk),
        (SELECT min(due_at) FROM run WHERE state = 'retrying'))), 0)::float
"""
_LEFT = f"""
    SELECT (SELECT coalesce(sum(messages), 0) FROM chunk)::bigint + (SELECT count(*) FROM run WHERE {runs.OPEN})
"""
_OPEN = """
    SELECT task.name, first_offset, chunk.messages, claims, kills, token, owner, beat_at > now() - interval '15 seconds'
    FROM chunk JOIN task ON task.id = task LEFT JOIN task_worker AS worker ON worker.name = owner ORDER BY chunk.id
"""
_SHOWN = 10  # of what is wrong
# The errors with which a task may fail, by what its message asked for.
_ERRORS = {
    ("unreliable", None): f"ValueError: {chaos.AT_RANDOM}",
    ("deadly", chaos.KILL): "it ended its process 3 times",
    ("deadly", chaos.SLEEP): "TimeLimitExceeded: it exceeded its time limit",
}


class Ends(NamedTuple):
    """How the obligation of a task for a message ended: how often with an effect, and its failed runs."""

    effects: int
    failed: list[tuple[str, int]]  # errors, and attempts

    def are_right(self, task: Task, wish: str | None) -> bool:
        """Whether it ended once, as it must; without a transaction an effect may be repeated."""
        may_fail = (task.name, wish) in _ERRORS
        attempts = 1 if wish == chaos.KILL else 1 + (task.options.max_retries or 0)
        as_designed = may_fail and self.failed == [(_ERRORS[task.name, wish], attempts)]
        if task.options.transaction:
            return (self.effects, as_designed) == (0, True) if may_fail else self == (1, [])
        return as_designed if self.failed else self.effects > 0


def oldest_seconds(world: World) -> float:
    """How long the oldest obligation has waited to be run; 0 if there is none, or PostgreSQL is away."""
    with suppress(psycopg2.Error):
        return max(0.0, round(float(world.sql(_OLDEST)[0][0]), 1))
    return 0.0


def settled(world: World, seconds: float) -> dict[str, Any]:
    """The account, once no obligation is open, or none has ended for so many seconds."""
    left, since = world.sql(_LEFT), time.monotonic()
    while world.obligations() and time.monotonic() - since < seconds:
        time.sleep(0.5)
        if (now := world.sql(_LEFT)) != left:
            left, since = now, time.monotonic()
    return account(world)


def account(world: World) -> dict[str, Any]:
    """The account of what has ended until now. It prints some of what is wrong or open."""
    stored = world.sql(_STORED)
    total, ended, failed, wrong = 0, 0, 0, []
    for task in (chaos.exact, chaos.unreliable, chaos.deadly):
        wishes = {name: wish for name, kind, wish in stored if _wants(task, kind)}
        ends = _ends(world, task)
        total += len(wishes)
        ended += len(wishes.keys() & ends.keys())
        failed += sum(bool(one.failed) for one in ends.values())
        for name in wishes.keys() | ends.keys():  # effects without a message are wrong, too
            found = ends.get(name, Ends(0, []))
            if name not in wishes or not found.are_right(task, wishes[name]):
                wrong.append(f"{task.name} for {name}, {wishes.get(name, 'not stored')}: {found}")
    [[left]] = world.sql(_LEFT)
    for line in [*wrong[:_SHOWN], *(f"open: {row}" for row in world.sql(_OPEN)[:_SHOWN])]:
        print(f"  {line}")
    exact = not wrong and not left and total == ended
    result = {"obligations": total, "ended": ended, "open": left, "failed as they must": failed, "wrong": len(wrong)}
    return {**result, "exact": exact}


def _wants(task: Task, kind: str) -> bool:
    return any(fnmatchcase(kind, pattern) for pattern in task.options.patterns() or "*")


def _ends(world: World, task: Task) -> dict[str, Ends]:
    effects = Counter(dict(world.sql(_EFFECTS, task.name)))
    failed: dict[str, list[tuple[str, int]]] = {}
    for name, error, attempts in world.sql(_FAILED, task.name):
        failed.setdefault(name, []).append((error, attempts))
    return {name: Ends(effects[name], failed.get(name, [])) for name in effects.keys() | failed.keys()}
