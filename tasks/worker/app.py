"""The Celery application: how tasks travel and what happens to them when things break."""

import os
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery
from celery.apps import worker as celery_worker
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from celery.signals import setup_logging, worker_process_init, worker_process_shutdown
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu.asynchronous import set_event_loop

from tasks.claim_store import EXPIRY_SECONDS, RedisClaimStore, explain
from tasks.config.setting import flag
from tasks.config.settings import Settings
from tasks.errors import ConfigurationError
from tasks.observability import events, setup
from tasks.seal import of_deployment
from tasks.store import batches, connection
from tasks.worker import monitoring
from tasks.worker.heartbeat import Heartbeat
from tasks.worker.persist import NAME, Persist
from tasks.worker.wakes import Wakes

_ASK_AGAIN_SECONDS = 0.5
_SHUTDOWN_SECONDS = 5.0


def queue(settings: Settings) -> str:
    """The queue of a consumer group: deployments that share a Redis must not store each other's messages."""
    return f"persist.{settings.kafka_group_id}"


def celery_app(name: str, settings: Settings) -> Celery:
    """A Celery application without tasks. Connects nothing. Raises ConfigurationError without a Redis address."""
    if settings.redis_url is None:
        raise ConfigurationError(f"{flag('redis_url')} / REDIS_URL must be set for this process")
    app = Celery(name, broker=broker_url(settings.redis_url), events=monitoring.Events, set_as_current=False)
    app.conf.update(configuration(settings))
    return app


def create_app(settings: Settings) -> Celery:
    """The application that stores. Connects nothing. Raises ConfigurationError without a Redis address."""
    app = celery_app("backend", settings)
    task = Persist()
    task.seal = of_deployment(settings)
    task.claims = RedisClaimStore(settings.redis_url or "", task.seal, worker=uuid.uuid4().hex)
    task.store = batches
    task.wakes = Wakes(settings)
    task.seconds = settings.batch_deadline_seconds
    task.calls_topic = settings.kafka_calls_topic
    app.register_task(task)
    return app


def configuration(settings: Settings) -> dict[str, Any]:
    """Celery's settings, each for a reason."""
    return {
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": queue(settings),
        "task_ignore_result": True,  # results go to the bridge of the batch, see tasks/claim_check.py
        # A task is acknowledged when its batch is stored. A lost worker's task is rejected; the bridge knows
        # by then and has made the claim stale, so that the task cannot kill a second worker unnoticed.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_time_limit": settings.batch_deadline_seconds,
        "worker_prefetch_multiplier": 1,
        "worker_consumer": "tasks.worker.app:WorkerConsumer",
        "worker_send_task_events": False,  # until a tool enables them, as Flower does
        "worker_enable_remote_control": settings.celery_monitoring == "on",
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # storing does not need Redis
        "worker_enable_prefetch_count_reduction": False,  # the bridge limits what is in flight
        "worker_soft_shutdown_timeout": 10.0,
        "worker_max_memory_per_child": 150_000,  # KiB; a larger process is replaced after its task
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,  # a Redis that is out of memory may recover
        "broker_transport_options": {
            # The bridge redelivers much earlier; this only removes leftovers.
            "visibility_timeout": EXPIRY_SECONDS,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
    }


def broker_url(redis_url: str) -> str:
    """A redis-py URL as kombu writes it: a socket is redis+socket://."""
    return redis_url.replace("unix://", "redis+socket://", 1)


class WorkerConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer of the queue, which by default waits up to 30 s before it reconnects to Redis."""

    def start(self) -> None:
        """Consume until stopped, or until an error that Celery considers unrecoverable."""
        try:
            super().start()
        except Exception:
            # Celery now shuts down, which never ended while Redis rejected commands.
            # After its exit supervisord restarts this process, and its batches are redelivered.
            end = threading.Timer(_SHUTDOWN_SECONDS, os._exit, [1])
            end.daemon = True
            end.start()
            raise

    def register_with_event_loop(self, hub: Any) -> None:
        """Called before the loop runs, also for a new connection: kombu forgets the loop with the old connection."""
        set_event_loop(hub)
        super().register_with_event_loop(hub)

    def ensure_connected(self, conn: Any) -> Any:
        """Retry until Redis responds, at most a second apart."""

        def away(error: Exception, seconds: float) -> None:
            events.emit("service.unavailable", service="redis", reason=explain(error))

        self.first_connection_attempt = False
        return conn.ensure_connection(
            away, interval_start=0.2, interval_step=0.4, interval_max=1, callback=maybe_shutdown
        )

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Celery would warn each time that tasks outlive connections, which is what our settings require."""
        monitoring.stop_if_denied(self, exc)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Redis responds and rejects; Celery would retry at once, and log each time."""
        events.emit("service.unavailable", service="redis", reason=explain(exc))
        time.sleep(_ASK_AGAIN_SECONDS)


def _say_nothing(*_: Any) -> None:
    pass


def work(
    app: Celery,
    queues: Sequence[str],
    settings: Settings,
    process: str,
    count: int,
    begin: Callable[[], None],
    pool: str = "prefork",
) -> None:
    """Run the processes or threads of an application until stopped; each process that has some calls `begin` first."""
    setup_logging.connect(lambda **_: events.configure(settings, process), weak=False)
    if pool == "prefork":
        worker_process_init.connect(lambda **_: begin(), weak=False)
        worker_process_shutdown.connect(lambda **_: setup.end(), weak=False)
    else:
        begin()
    celery_worker.safe_say = _say_nothing  # when it stops, without our log format
    warnings.simplefilter("ignore", SecurityWarning)  # when it runs as root, because of pickle; we accept only JSON
    arguments = ["--queues", ",".join(queues), "--concurrency", str(count), "--pool", pool]
    quiet = ["--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
    if settings.celery_monitoring == "off":
        quiet.append("--without-heartbeat")
    monitoring.only_look()
    app.worker_main(["--quiet", "worker", "--hostname", monitoring.node_name(process), *arguments, *quiet])
    if pool != "prefork":
        setup.end()


def run_worker(settings: Settings) -> None:
    """Run a Celery worker with `settings.workers` prefork processes, until stopped."""
    setup.exit_if_a_thread_fails()
    app = create_app(settings)
    # Half of the bridge's limit, because a restart of the bridge would not help.
    patience = settings.watchdog_seconds / 2
    heartbeat = Heartbeat(app.tasks[NAME].claims, queue(settings), patience)
    heartbeat.start()
    connection.configure(settings.database_url, "worker", connections=1)
    work(app, [queue(settings)], settings, "worker", settings.workers, lambda: setup.begin(settings, "worker"))
    heartbeat.stop()
    events.emit("process.stopped")
