"""A thread of the parent of the users' tasks: queues Celery tasks for what is open, and frees what processes left.

What is open is said by PostgreSQL, which is asked every second, and then as many Celery tasks are queued as can run at
once; what Redis says only makes the first of them sooner, five times a second at most, so that many small batches do
not become as many Celery tasks.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from queue import Empty, SimpleQueue

import peewee
import psycopg2
import redis
from celery.worker import state
from kombu.exceptions import OperationalError

from tasks.claim_store import explain
from tasks.observability import events
from tasks.store import chunks, runs, task_registry
from tasks.store.connection import NO_TABLE, database, sqlstate
from tasks.worker.execute import Claimed
from tasks.worker.heartbeat import TakesTasks
from tasks.worker.wakes import Wakes

_LOOK_SECONDS = 1.0  # between looking into PostgreSQL, with a heartbeat
_APART_SECONDS = 0.2  # of two Celery tasks for the same users' task, unless that has more open
_AWAY = (redis.RedisError, OperationalError)


class Dispatcher(threading.Thread):
    """Runs from `start` until `stop`."""

    def __init__(
        self,
        owner: str,
        names: Collection[str],
        declared: Collection[str],
        enqueue: Callable[[str], None],
        wakes: Wakes,
        queues: Sequence[str],
        most: int,
        patience_seconds: float,
        checks: Sequence[Callable[[], None]] = (),
    ) -> None:
        """`names` are those of the users' tasks with their aliases; `declared` should be registered, or it is logged.

        `enqueue` queues the Celery task of a users' task; at most `most` wait in `queues`.

        The process ends when some have waited for `patience_seconds`, and none was taken. `checks` are called every
        second, too.
        """
        super().__init__(name="dispatcher", daemon=True)
        self.left: SimpleQueue[Claimed] = SimpleQueue()
        self._owner, self._names = owner, sorted(names)
        self._enqueue, self._wakes, self._queues, self._most = enqueue, wakes, queues, most
        self._declared, self._verified = frozenset(declared), False
        self._queued_at: dict[str, float] = {}
        self._wanted: dict[str, int] = {}  # by task: Celery tasks that find something to run
        self._checks = checks
        self._unfreed: list[Claimed] = []
        self._takes_tasks = TakesTasks(patience_seconds)
        self._failures: dict[str, str] = {}  # by service, those that last
        self._stopping = threading.Event()

    def run(self) -> None:
        """Dispatch until `stop`."""
        look_at = 0.0
        while not self._stopping.is_set():
            now = time.monotonic()
            if now >= look_at:
                look_at = now + _LOOK_SECONDS
                for check in self._checks:
                    check()
                self._wanted.update(self._look())
            wait = _APART_SECONDS if self._wanted else max(0.0, look_at - time.monotonic())
            try:
                for name in self._wakes.wait(self._names, max(wait, 0.01)):
                    self._wanted.setdefault(name, 1)
                self._dispatch()
                self._failures.pop("redis", None)
            except _AWAY as error:
                self._takes_tasks.check(0)
                self._fail("redis", str(explain(error)))
                self._stopping.wait(_LOOK_SECONDS)
        self._try(lambda: runs.leave(self._owner))

    def stop(self) -> None:
        """End, and free what is still claimed. May be called more than once."""
        self._stopping.set()
        if self.is_alive():
            self.join(2)

    def _dispatch(self) -> None:
        now, queued = time.monotonic(), self._wakes.length(self._queues)
        self._takes_tasks.check(queued)
        ready = [name for name in self._wanted if now - self._queued_at.get(name, 0.0) >= _APART_SECONDS]
        ready.sort(key=lambda name: self._queued_at.get(name, 0.0))  # in turns, or some would never have one
        free = max(0, self._most - queued)
        share = max(1, free // max(1, len(ready)))
        for name in ready[:free]:
            for _ in range(min(share, self._wanted.pop(name))):
                self._enqueue(name)
            self._queued_at[name] = now

    def _look(self) -> Mapping[str, int]:
        found: dict[str, int] = {}

        def look() -> None:
            redis_away = self._failures.get("redis")
            runs.beat(self._owner, self._names, redis_away and f"redis: {redis_away}")
            self._verify()
            self._free()
            found.update(runs.waiting(self._names, self._most))

        self._try(look)
        return found

    def _verify(self) -> None:
        """Log once that no message runs these tasks, because `init` has not registered them."""
        if self._verified:
            return
        self._verified = True
        missing = self._declared - set(task_registry.names())
        if missing:
            events.emit("task.unregistered", tasks=sorted(missing))

    def _free(self) -> None:
        # A PostgreSQL that was restored, or a standby that lagged, has claims of Celery tasks that ended since then. In
        # this order: what has ended after it was asked for its claims has said so in `left`.
        forgotten = [token for token in chunks.tokens(self._owner) if token not in state.requests]
        while True:
            try:
                self._unfreed.append(self.left.get_nowait())
            except Empty:
                break
        said = {claimed.token for claimed in self._unfreed}
        self._unfreed += [Claimed(token, ended=False) for token in forgotten if token not in said]
        while self._unfreed:
            token, ended = self._unfreed[0]
            for kind in (chunks, runs):
                (kind.abandon if ended else kind.release)(token)
            self._unfreed.pop(0)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            with database.connection_context():
                action()
            self._failures.pop("postgresql", None)
        except (peewee.PeeweeException, psycopg2.Error) as error:
            if sqlstate(error) == NO_TABLE:
                self._fail("postgresql", "the tables are missing; run init")
            else:
                self._fail("postgresql", (str(error).strip() or type(error).__name__).splitlines()[0])

    def _fail(self, service: str, reason: str) -> None:
        if reason != self._failures.get(service):
            self._failures[service] = reason
            events.emit("dispatch.failed", reason=f"{service}: {reason}")
