"""What the parent of worker processes does for a Celery task: it acknowledges it, also where Redis fails meanwhile."""

from collections.abc import Callable
from typing import Any, NoReturn

import redis
from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.worker.request import Request
from kombu.asynchronous import get_event_loop


class SettledRequest(Request):  # type: ignore[misc]
    """A Celery task in the parent, which is settled once: an error of Redis makes the worker reconnect."""

    def info(self, safe: bool = True) -> Any:
        """What `inspect` shows of the task: as its sender describes it, because its arguments have a seal."""
        return super().info(safe=True)

    def acknowledge(self) -> None:
        """Acknowledge the task."""
        self._settle(self.message.ack)

    def reject(self, requeue: bool = False) -> None:
        """Return the task to the queue."""
        self._settle(lambda: self.message.reject(requeue=requeue))

    def _settle(self, say: Callable[[], None]) -> None:
        # Celery would only log the error. The task would count as taken for ever, the prefetch window as full, and
        # the worker would never consume again. As an error of the event loop it makes the worker reconnect.
        if self.acknowledged:
            return
        self.acknowledged: bool = True
        try:
            say()
        except (redis.RedisError, *self._connection_errors) as error:
            loop = get_event_loop()
            if loop is not None:  # otherwise it is already reconnecting, or ending
                loop.call_soon(_raise, error)


def cause(info: ExceptionInfo) -> Any:
    """The exception itself, which billiard may have wrapped."""
    raised = info.exception
    return raised.exc if isinstance(raised, ExceptionWithTraceback) else raised


def _raise(error: Exception) -> NoReturn:
    raise error
