"""The Celery application for Celery's own tools: `celery -A tasks.app inspect ping`, Flower. It runs no worker."""

import functools
import sys
from typing import Any

from celery import Celery
from celery.signals import celeryd_init

from tasks.config import settings
from tasks.errors import BackendError, ConfigurationError
from tasks.worker import app as storing
from tasks.worker.execute import Execute

_NO_REDIS = (
    "REDIS_URL is not set. Without it each pod has a Redis of its own, which only its own processes reach;"
    " set REDIS_URL to the Redis that `consume` uses"
)
_OFF = "CELERY_MONITORING is off, so the workers do not answer"
_NO_WORKER = "tasks.app is for inspecting workers; `python -m bootstrap consume` starts them"


def __getattr__(name: str) -> Celery:
    """`app`, made from the environment when it is first asked for. Exits with a sentence where it cannot be made."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return _app()
    except BackendError as error:
        sys.stderr.write(f"tasks.app: {error}\n")
        sys.exit(error.exit_code)  # Celery would show the traceback of any other exception


@functools.cache
def _app() -> Celery:
    loaded = settings.load()
    if loaded.redis_url is None:
        raise ConfigurationError(_NO_REDIS)
    if loaded.celery_monitoring == "off":
        raise ConfigurationError(_OFF)
    app = storing.create_app(loaded)
    app.register_task(Execute())
    celeryd_init.connect(_refuse_worker, weak=False)
    return app


def _refuse_worker(**_: Any) -> None:
    # It would take batches, and could not store them.
    sys.stderr.write(f"tasks.app: {_NO_WORKER}\n")
    sys.exit(ConfigurationError.exit_code)
