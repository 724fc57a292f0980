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
from bootstrap.pod import metrics_port
from bridge.kafka.publisher import KafkaPublisher
from tasks.config.settings import Settings
from tasks.errors import BackendError, ConfigurationError
from tasks.observability import events, setup
from tasks.store import connection
from tasks.store.connection import TRANSIENT
from tasks.store.schema_watch import SchemaWatch

_REFUSING_THREADS = 64  # so that a request beyond the limits is rejected soon, and does not wait unread
_YOUNG_OBJECTS = 5_000  # objects between garbage collections; Python's own 700 are two requests
_WATCH_SECONDS = 2.0
_LINGER_SECONDS, _READ_AT_ONCE = 2.0, 65_536  # for a client that still sends during the response
_GRACE_SECONDS = 20  # how long running requests may take to finish after SIGTERM


class Gunicorn(gunicorn.app.base.BaseApplication):  # type: ignore[misc]
    """gunicorn, configured by our settings instead of a file."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._publisher: KafkaPublisher | None = None
        self._schema_watch = _SchemaWatchThread()
        self.worker: Worker | None = None  # name of this process
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
            "worker_connections": threads + 1000,  # clients beyond the threads wait unread
            "when_ready": _limit_patience,
            "pre_fork": _choose_core,
            "post_fork": _stay_on_core,
            "post_worker_init": _prepare,
            "worker_exit": _close,
            "on_exit": _log_stopped,
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
        """Runs in each process after its fork, so that processes share no connection."""
        settings = self._settings
        setup.begin(settings, "serve")
        deadlines.install()
        connection.configure(settings.database_url, "serve", connections=postgresql.CONNECTIONS)
        self._publisher = KafkaPublisher(settings)
        self._schema_watch.start()
        return create_app(settings, self._publisher, lambda: self.worker is None or self.worker.alive)

    def close(self) -> None:
        """Runs in each process after its last request: send the messages queued for Kafka, stop the threads."""
        self._schema_watch.stop()
        if self._publisher is not None:
            self._publisher.close()
        setup.end()


class _SchemaWatchThread(threading.Thread):
    """Logs when the tables do not match this program. An outage is logged by the requests that need PostgreSQL."""

    def __init__(self) -> None:
        super().__init__(name="schema-watch", daemon=True)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Check until `stop`."""
        watch = SchemaWatch()
        while not self._stopping.is_set():
            with (
                contextlib.suppress(Problem, BackendError, peewee.PeeweeException, *TRANSIENT),
                postgresql.HEALTH.transaction(),
            ):
                watch.check_if_due()
            self._stopping.wait(_WATCH_SECONDS)

    def stop(self) -> None:
        """End after the current check."""
        self._stopping.set()


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
    # Closing with unread bytes resets the connection, and the client may not see its response.
    connection.shutdown(socket.SHUT_WR)
    readable = select.poll()
    readable.register(connection, select.POLLIN)
    deadline = time.monotonic() + _LINGER_SECONDS
    left = 0.0  # without unread bytes there is nothing to wait for
    while readable.poll(left * 1000) and connection.recv(_READ_AT_ONCE):
        left = max(0.0, deadline - time.monotonic())
        if not left:
            break
    connection.shutdown(socket.SHUT_RDWR)  # gunicorn, which waits for the client's end, finds it there


def _prepare(worker: Any) -> None:
    worker.app.worker = worker  # a stream never ends by itself, so it checks whether the process should stop
    # All objects so far stay: collecting them again and again caused the longest pauses.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


def _close(arbiter: Any, worker: Any) -> None:
    worker.app.close()


def _log_stopped(arbiter: Any) -> None:
    events.emit("process.stopped")


def _choose_core(arbiter: Any, worker: Any) -> None:
    """Give each process a core, if all cores get as many processes; otherwise a core could be idle.

    The threads of a process take turns anyway, and a turn that moves to another core is expensive: with one core
    a process handles 1.4 times the requests at half the p99 (docs/decisions/0031-cost-of-a-post.md).
    """
    worker.core = None
    if hasattr(os, "sched_getaffinity"):  # Linux
        cores = sorted(os.sched_getaffinity(0))
        if arbiter.cfg.workers % len(cores) == 0:
            taken = [living.core for living in arbiter.WORKERS.values()]
            worker.core = min(cores, key=taken.count)


def _stay_on_core(arbiter: Any, worker: Any) -> None:
    if worker.core is not None:
        os.sched_setaffinity(0, {worker.core})  # threads start later, and inherit it


def _limit_patience(arbiter: Any) -> None:
    # Timeouts of the kernel, which connections inherit from the listening sockets: Python's own timeout costs a poll,
    # and a switch of threads, before every read and send.
    seconds = struct.pack("ll", limits.SLOWEST_SECONDS, 0)
    for listener in arbiter.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)


class _Logger(gunicorn.glogging.Logger):  # type: ignore[misc]
    """Writes gunicorn's own log lines in our format."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = True
        self.error_log.handlers[:] = []
        self.error_log.setLevel(logging.WARNING)
        self.access_log.handlers[:] = []

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        if not isinstance(sys.exc_info()[1], (BlockingIOError, TimeoutError)):  # a client was too slow
            super().exception(msg, *args, **kwargs)


def _check_address(address: str, port: int) -> None:
    """Raises ConfigurationError with one sentence; gunicorn would retry five times and exit."""
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((address, port), family=family).close()
    except OSError as error:
        where = f"{address}:{port} (--address / ADDRESS, --port / PORT)"
        reason = (error.strerror or "").split(" (")[0]  # Python repeats the address in brackets
        raise ConfigurationError(f"cannot listen on {where}: {reason}") from None


def run(settings: Settings, flags: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish. Raises ConfigurationError."""
    _check_address(settings.address, settings.port)
    events.emit("process.started", address=settings.address, port=settings.port)
    if not settings.api_keys:
        events.emit("api.open", setting="API_KEYS")
    gunicorn.http.wsgi.SERVER = "backend"  # no client needs to know the server's software
    Gunicorn(metrics_port.shared(settings)).run()
