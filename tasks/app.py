"""The Celery application: how tasks travel and what happens to them when things break."""

import warnings
from typing import Any

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging

from tasks import database, telemetry
from tasks.claims import EXPIRY_SECONDS, ClaimDesk
from tasks.errors import ConfigurationError
from tasks.persist import Persist
from tasks.settings import Settings, flag

QUEUE = "persist"


def create_app(settings: Settings) -> Celery:
    """Wire the Celery application. Connects nothing. Raises ConfigurationError without a Redis address."""
    if settings.redis_url is None:
        raise ConfigurationError(f"{flag('redis_url')} / REDIS_URL must be set for this process")
    app = Celery("backend", broker=broker_url(settings.redis_url), set_as_current=False)
    app.conf.update(configuration(settings))
    task = Persist()
    task.desk = ClaimDesk(settings.redis_url)
    app.register_task(task)
    return app


def configuration(settings: Settings) -> dict[str, Any]:
    """Celery's settings, each for a reason."""
    return {
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": QUEUE,
        "task_ignore_result": True,  # results go to the bridge that asked, see tasks.claims
        # A task is acknowledged when its batch is stored. A worker that is lost rejects it; the bridge
        # has heard by then and made the claim stale, so that it cannot kill a second worker unseen.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_time_limit": settings.batch_deadline_seconds,
        "worker_prefetch_multiplier": 1,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,  # the bridge is the only controller
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # storing does not need Redis
        "worker_soft_shutdown_timeout": 10.0,
        "worker_max_memory_per_child": 150_000,  # KiB; a larger process is replaced after its task
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            # The bridge hands over again by itself, much earlier; this only empties what is left behind.
            "visibility_timeout": EXPIRY_SECONDS,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
    }


def broker_url(redis_url: str) -> str:
    """kombu's spelling of a redis-py URL: a socket is redis+socket:// there."""
    return redis_url.replace("unix://", "redis+socket://", 1)


def run_worker(settings: Settings) -> None:
    """Work until told to stop: a Celery worker with `settings.workers` prefork processes."""
    app = create_app(settings)
    setup_logging.connect(lambda **_: telemetry.configure(settings, "worker"), weak=False)
    database.configure(settings.database_url, "worker", connections=1)
    arguments = ["worker", "--queues", QUEUE, "--concurrency", str(settings.workers), "--pool", "prefork"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    warnings.simplefilter("ignore", SecurityWarning)  # on running as root: it fears pickle, and we take JSON only
    app.worker_main(["--quiet", *arguments, *quiet])
