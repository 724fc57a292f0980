"""What Celery's own tools, such as Flower, may do with a worker: look at it, and receive its events."""

import uuid
from typing import Any

from celery.app import events as celery_events
from celery.events.dispatcher import EventDispatcher
from celery.worker.consumer.control import Control
from celery.worker.consumer.heart import Heart
from celery.worker.control import Panel
from kombu.utils.url import maybe_sanitize_url
from redis.exceptions import NoPermissionError

from tasks.observability import events

# The others change a worker. Who can write to Redis must not be able to, see docs/decisions/0049-seals.md.
_ALLOWED = {
    "active",
    "active_queues",
    "clock",
    "conf",
    "disable_events",
    "enable_events",
    "ping",
    "query_task",
    "registered",
    "report",
    "reserved",
    "revoked",
    "scheduled",
    "stats",
}


def only_look() -> None:
    """Let this process refuse all of Celery's remote commands that would change it."""
    for name in Panel.data.keys() - _ALLOWED:
        Panel.data[name] = refuse
    Panel.data["stats"] = stats


def stop_if_denied(consumer: Any, error: Exception) -> None:
    """Storing must not depend on being seen: without the right to use channels, Celery would reconnect for ever."""
    if not (isinstance(error, NoPermissionError) and "channel" in str(error)):
        return
    for step in [step for step in consumer.steps if isinstance(step, Control | Heart)]:
        step.stop(consumer)
        consumer.steps.remove(step)
    events.emit("monitoring.denied", reason=str(error))


def refuse(state: Any, **_: Any) -> dict[str, str]:
    """The reply to a command that would change a worker."""
    return {"error": "workers can be inspected, not changed"}


def stats(state: Any, **_: Any) -> dict[str, Any]:
    """Celery's command, without the password in the URL of a Unix socket, which Celery leaves in."""
    shown: dict[str, Any] = state.consumer.controller.stats()
    shown["broker"]["hostname"] = maybe_sanitize_url(shown["broker"]["hostname"])
    return shown


def node_name(process: str) -> str:
    """The name of a worker, different for each: several pods may run on one host. Celery replaces `%h`."""
    return f"{process}@%h.{uuid.uuid4().hex[:8]}"


class Dispatcher(EventDispatcher):  # type: ignore[misc]
    """Publishes the events of a worker, each once: nobody needs an event of a minute ago."""

    def send(self, type: str, **options: Any) -> Any:
        """Publish an event, if its group is enabled."""
        # Celery retries a heartbeat until Redis responds, and the worker would do nothing else meanwhile.
        return super().send(type, **{**options, "retry": False})


class Events(celery_events.Events):  # type: ignore[misc]
    """Where Celery finds the dispatcher."""

    dispatcher_cls = Dispatcher
