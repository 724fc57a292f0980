"""`serve`: the API under gunicorn, a few processes with threads."""

import contextlib
import gc
import logging
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import gunicorn.app.base
import gunicorn.glogging
import gunicorn.http.wsgi
import peewee
from gunicorn.workers.gthread import ThreadWorker

from api import deadlines, limits, postgresql
from api.app import create_app
from api.problems import Problem
from bootstrap import scraping
from bridge.publisher import KafkaPublisher
from tasks import database, observing, telemetry
from tasks.database import TRANSIENT
from tasks.errors import BackendError, ConfigurationError
from tasks.schema_watch import SchemaWatch
from tasks.settings import Settings

_REFUSING_THREADS = 64  # so that a request beyond the bound is refused soon, and does not wait unread
_YOUNG_OBJECTS = 5_000  # made between two looks for garbage; Python's own 700 are two requests
_WATCH_SECONDS = 2.0
_LINGER_SECONDS, _READ_AT_ONCE = 2.0, 65_536  # for a client that still sends when it is answered
_GRACE_SECONDS = 20  # running requests may finish for so long after SIGTERM


class Server(gunicorn.app.base.BaseApplication):  # type: ignore[misc]
    """gunicorn, told by our settings instead of a file."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Called by gunicorn."""
        settings = self._settings
        threads = limits.threads(settings) + _REFUSING_THREADS
        options: dict[str, Any] = {
            "bind": f"{settings.address}:{settings.port}",
            "workers": settings.web_processes,
            "worker_class": f"{__name__}.Worker",
            "threads": threads,
            "worker_connections": threads + 1000,  # clients beyond the threads are kept waiting unread
            "when_ready": _limit_patience,
            "pre_fork": _choose_core,
            "post_fork": _stay_on_core,
            "post_worker_init": _prepare,
            "graceful_timeout": _GRACE_SECONDS,
            "timeout": 60,
            "keepalive": 75,
            "worker_tmp_dir": None,
            "proc_name": "backend-serve",
            "control_socket_disable": True,
            "logger_class": _Logger,
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        """Runs in each process after its fork, so that no connection is shared between two."""
        settings = self._settings
        observing.begin(settings, "serve")
        deadlines.install()
        database.configure(settings.database_url, "serve", connections=postgresql.CONNECTIONS)
        threading.Thread(target=_watch_tables, name="schema-watch", daemon=True).start()
        return create_app(settings, KafkaPublisher(settings))


def _watch_tables() -> None:
    """Say in the log when the tables do not fit this program. An outage is reported by those that need PostgreSQL."""
    watch = SchemaWatch()
    while True:
        with (
            contextlib.suppress(Problem, BackendError, peewee.PeeweeException, *TRANSIENT),
            postgresql.HEALTH.transaction(),
        ):
            watch.turn()
        time.sleep(_WATCH_SECONDS)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker, whose main thread never waits for a client to close its side of a connection.

    gunicorn waits up to 2 s for that in the one thread that accepts connections, so a few such clients keep out all.
    """

    def handle(self, conn: Any) -> Any:
        """Called by gunicorn in a thread of its pool: a request, and whether the connection stays open."""
        keep = super().handle(conn)
        if not keep:
            with contextlib.suppress(OSError):
                _finish(conn.sock)
        return keep


def _finish(connection: socket.socket) -> None:
    # Closing over bytes that are not read resets the connection, and the client may not see its answer.
    connection.shutdown(socket.SHUT_WR)
    readable = select.poll()
    readable.register(connection, select.POLLIN)
    deadline = time.monotonic() + _LINGER_SECONDS
    left = 0.0  # without any unread bytes there is nothing to wait for
    while readable.poll(left * 1000) and connection.recv(_READ_AT_ONCE):
        left = max(0.0, deadline - time.monotonic())
        if not left:
            break
    connection.shutdown(socket.SHUT_RDWR)  # gunicorn, which waits for the client's end, finds it there


def _prepare(worker: Any) -> None:
    # A stream never ends by itself; it must when its process is asked to.
    worker.wsgi.extensions["serving"] = lambda: worker.alive
    # What is there now stays: to look through all of it for garbage again and again made the longest pauses.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


def _choose_core(arbiter: Any, worker: Any) -> None:
    """Give each process a core, where all cores get as many: then none is left idle while another is in demand.

    The threads of a process take turns anyway, and a turn that goes to another core costs more than many a
    function: 4 of 10 requests more, and half the p99 (DECISIONS 31).
    """
    worker.core = None
    if hasattr(os, "sched_getaffinity"):  # Linux
        cores = sorted(os.sched_getaffinity(0))
        if arbiter.cfg.workers % len(cores) == 0:
            taken = [living.core for living in arbiter.WORKERS.values()]
            worker.core = min(cores, key=taken.count)


def _stay_on_core(arbiter: Any, worker: Any) -> None:
    if worker.core is not None:
        os.sched_setaffinity(0, {worker.core})  # threads are made later, and inherit it


def _limit_patience(arbiter: Any) -> None:
    # For the kernel to watch, on the listening sockets, from which connections have it: a timeout of Python's own
    # costs a poll, and with it a change of threads, before everything that is read or sent.
    seconds = struct.pack("ll", limits.SLOWEST_SECONDS, 0)
    for listener in arbiter.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)


class _Logger(gunicorn.glogging.Logger):  # type: ignore[misc]
    """gunicorn's own lines go where all lines go."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = True
        self.error_log.handlers[:] = []
        self.error_log.setLevel(logging.WARNING)
        self.access_log.handlers[:] = []

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        if not isinstance(sys.exc_info()[1], (BlockingIOError, TimeoutError)):  # a client was too slow
            super().exception(msg, *args, **kwargs)


def _check_address(address: str, port: int) -> None:
    """Say in a sentence what gunicorn would try five times and then exit on."""
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((address, port), family=family).close()
    except OSError as error:
        where = f"{address}:{port} (--address / ADDRESS, --port / PORT)"
        said = (error.strerror or "").split(" (")[0]  # Python adds the address, which we have said
        raise ConfigurationError(f"cannot listen on {where}: {said}") from None


def run(settings: Settings, flags: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish. Raises ConfigurationError."""
    _check_address(settings.address, settings.port)
    telemetry.emit("process.started", address=settings.address, port=settings.port)
    if not settings.api_keys:
        telemetry.emit("api.open", setting="API_KEYS")
    gunicorn.http.wsgi.SERVER = "backend"  # no client needs to know what serves it
    Server(scraping.shared(settings)).run()
