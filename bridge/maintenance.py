"""What keeps the tables small while messages are stored, done by one of the bridges, in a thread of its own."""

import contextlib
import threading

import peewee
import psycopg2

from tasks.store import statistics
from tasks.store.connection import database

_INTERVAL_SECONDS = 10.0


class Maintenance(threading.Thread):
    """Works until `stop`. What an outage of PostgreSQL, or another bridge, prevents is done later."""

    def __init__(self) -> None:
        super().__init__(name="maintenance", daemon=True)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Condense the counts of messages, again and again."""
        while not self._stopping.wait(_INTERVAL_SECONDS):
            with contextlib.suppress(peewee.PeeweeException, psycopg2.Error), database.connection_context():
                statistics.condense()

    def stop(self) -> None:
        """End after the current work. May be called more than once."""
        self._stopping.set()
