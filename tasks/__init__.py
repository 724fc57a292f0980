"""The core: messages, tables, Celery tasks. The names below are for modules that declare tasks of their own."""

from tasks.declaration import Message, Reject, Retry, TimeLimitExceeded, task
from tasks.store.connection import database

__all__ = ["Message", "Reject", "Retry", "TimeLimitExceeded", "database", "task"]
