"""What keeps the tables small while messages are stored, done by one of the bridges, in a thread of its own."""

import threading
from collections.abc import Callable

import peewee
import psycopg2

from tasks.observability import events, metrics
from tasks.store import leaves, statistics, task_status
from tasks.store.connection import NO_TABLE, TRANSIENT, database, sqlstate
from tasks.store.task_status import Waiting

_INTERVAL_SECONDS = 10.0


class Maintenance(threading.Thread):
    """Works until `stop`. What an outage of PostgreSQL, or another bridge, prevents is done later."""

    def __init__(self) -> None:
        super().__init__(name="maintenance", daemon=True)
        self._stopping = threading.Event()
        self._said = ""
        self._tasks: set[str] = set()

    def run(self) -> None:
        """Make leaves ahead, condense the counts of messages, and measure what waits for the users' tasks."""
        while True:
            for action in (leaves.make_ahead, statistics.condense, self._measure_tasks):
                self._try(action)
            if self._stopping.wait(_INTERVAL_SECONDS):
                return

    def _try(self, action: Callable[[], object]) -> None:
        try:
            with database.connection_context():
                action()
        except TRANSIENT:
            pass  # the workers say so
        except (peewee.PeeweeException, psycopg2.Error) as error:
            failure = str(error).splitlines()[0]
            if failure != self._said and sqlstate(error) != NO_TABLE:  # the reporter's thread says so
                self._said = failure
                events.emit("maintenance.failed", reason=failure)

    def _measure_tasks(self) -> None:
        # Here, so that it is known while no process runs them.
        found = task_status.waiting()
        gone = self._tasks - {task.name for task in found}
        for name, paused, messages, seconds in (*found, *(Waiting(name, False, 0, 0.0) for name in gone)):
            metrics.TASK_PAUSED.set(paused, name)
            metrics.TASK_WAITING.set(messages, name)
            metrics.TASK_OLDEST.set(seconds, name)
            self._tasks.add(name)

    def stop(self) -> None:
        """End after the current work. May be called more than once."""
        self._stopping.set()
