"""`init`: waits for the services, then creates or upgrades topics and tables."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from bridge.kafka import topics
from tasks import user_modules
from tasks.config.settings import Settings
from tasks.declaration import Task
from tasks.errors import AccessDenied, NotReady, Unavailable
from tasks.observability import events
from tasks.store import connection, leaves, migrations, payload_index, server_settings, task_registry, unique_keys
from tasks.store.schema import MIGRATIONS
from tasks.store.task_registry import Registration

T = TypeVar("T")
_RETRY_SECONDS = 1.0


def run(settings: Settings, flags: Mapping[str, str], check: bool) -> None:
    """Create missing topics and tables, upgrade old ones, and warn about differences; a second run changes nothing.

    With `check` it only reports, and raises NotReady if anything is missing. Raises Unavailable,
    AccessDenied, ConfigurationError.
    """
    connection.configure(settings.database_url, "init", connections=1)
    deadline = time.monotonic() + settings.wait_seconds
    steps = _wait("kafka", deadline, lambda: topics.ensure(settings, check))
    for step in steps:
        _report(step.sentence, step.action, check)
    if check:
        for hint in _wait("postgresql", deadline, _hints):
            _report(hint, "warn", check)
    tables = _wait("postgresql", deadline, lambda: _tables(settings.payload_index == "on", check))
    for sentence in tables:
        _report(sentence, "create", check)
    if not any(sentence.startswith("tables: ") for sentence in tables):
        _report(f"tables: version {migrations.VERSION}", "keep", check)
    declared = user_modules.load(settings.tasks)
    registrations = _wait("postgresql", deadline, lambda: _register(declared, check)) if declared else []
    for registration in registrations:
        _report(f"task {registration.name}", "create", check)
    missing = len(tables) + len(registrations) + sum(step.action in ("create", "extend") for step in steps)
    if check and missing:
        raise NotReady(f"{missing} step(s) are missing; run init without --check")
    events.emit("init.done", result=f"{missing} step(s) done" if missing else "nothing to do")


def _tables(index: bool, check: bool) -> list[str]:
    """A sentence for each missing part of the database; created unless `check`. Raises NotReady and other errors."""
    with connection.session():
        migrations.require_upgradable()
        there = migrations.version()
        pending = [step for step in MIGRATIONS if step.version > there] if check else migrations.upgrade()
        missing = [f"tables: version {step.version}, {step.summary}" for step in pending]
        if not (check and pending):  # otherwise the tables are missing, or have the keys of another version
            keys = unique_keys.missing() if check else unique_keys.restore()
            missing += [f"unique key of {unique_keys.describe(table)}" for table in keys]
            if leaves.are_missing():
                missing.append("leaves of message for the days ahead")
                if not check:
                    leaves.make_ahead()
            if migrations.restored():
                missing.append("order of messages that were restored from another server")
                if not check:
                    migrations.renumber()
        if payload_index.differs(index):
            missing.append(f"index of payloads: {'on' if index else 'off'}")
            if not check:
                payload_index.switch(index)
        return missing


def _register(declared: Sequence[Task], check: bool) -> list[Registration]:
    with connection.session():
        if check and migrations.version() < migrations.VERSION:
            return list(map(task_registry.of, declared))
        return task_registry.missing(declared) if check else task_registry.register(declared)


def _hints() -> list[str]:
    with connection.session():
        return server_settings.hints()


def _wait(service: str, deadline: float, attempt: Callable[[], T]) -> T:
    """Repeat `attempt` while it raises Unavailable, until the deadline; other errors are raised at once."""
    while True:
        try:
            return attempt()
        except Unavailable as error:
            left = deadline - time.monotonic()
            if left <= 0 or isinstance(error, AccessDenied):
                raise
            events.emit("init.waiting", service=service, reason=str(error), seconds_left=round(left))
            time.sleep(min(_RETRY_SECONDS, left))


def _report(sentence: str, action: str, check: bool) -> None:
    if action == "warn":
        events.emit("init.warning", result=sentence)
        return
    done = {"create": "created", "extend": "extended", "keep": "unchanged"}
    reports = {"create": "missing", "extend": "too small", "keep": "as configured"}
    events.emit("init.done", result=f"{sentence}: {(reports if check else done)[action]}")
