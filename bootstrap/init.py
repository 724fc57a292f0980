"""`init`: waits for the services, then brings topics and tables to what the settings want."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from bridge import topics
from tasks import database, schema, telemetry
from tasks.errors import AccessDenied, NotReady, Unavailable
from tasks.settings import Settings

T = TypeVar("T")
_RETRY_SECONDS = 1.0


def run(settings: Settings, flags: Mapping[str, str], check: bool) -> None:
    """Create what is missing, extend what is too small, warn of what differs; run again, it changes nothing.

    With `check` it reports and raises NotReady when anything is missing. Raises Unavailable,
    AccessDenied, ConfigurationError.
    """
    database.configure(settings.database_url, "init", connections=1)
    deadline = time.monotonic() + settings.wait_seconds
    steps = _wait("kafka", deadline, lambda: topics.ensure(settings, check))
    for step in steps:
        _report(step.sentence, step.action, check)
    pending, restored, index = _wait("postgresql", deadline, lambda: _tables(settings.payload_index == "on", check))
    for migration in pending:
        _report(f"tables: version {migration.version}, {migration.summary}", "create", check)
    if not pending:
        _report(f"tables: version {schema.LATEST}", "keep", check)
    if restored:
        _report("order of messages that were restored from another server", "create", check)
    if index is not None:
        _report(f"index of payloads: {'on' if index else 'off'}", "create", check)
    missing = len(pending) + restored + (index is not None) + sum(step.action in ("create", "extend") for step in steps)
    if check and missing:
        raise NotReady(f"{missing} step(s) are missing; run init without --check")
    telemetry.emit("init.done", result=f"{missing} step(s) done" if missing else "nothing to do")


def _tables(index: bool, check: bool) -> tuple[list[schema.Migration], bool, bool | None]:
    """The migrations that were missing, whether messages were restored from elsewhere, and what the index of
    payloads was to become, if it was not."""
    with database.session():
        there = schema.version()
        pending = [step for step in schema.MIGRATIONS if step.version > there] if check else schema.upgrade()
        complete = not check or not pending
        restored = complete and schema.restored()
        if restored and not check:
            schema.renumber()
        has = there > 0 and schema.has_payload_index()
        if index != has and not check:
            schema.index_payloads(index)
        return pending, restored, index if index != has else None


def _wait(service: str, deadline: float, attempt: Callable[[], T]) -> T:
    """Repeat `attempt` until it raises Unavailable no more, or the deadline passes; at once what does not pass."""
    while True:
        try:
            return attempt()
        except Unavailable as error:
            left = deadline - time.monotonic()
            if left <= 0 or isinstance(error, AccessDenied):
                raise
            telemetry.emit("init.waiting", service=service, reason=str(error), seconds_left=round(left))
            time.sleep(min(_RETRY_SECONDS, left))


def _report(sentence: str, action: str, check: bool) -> None:
    if action == "warn":
        telemetry.emit("init.warning", result=sentence)
        return
    done = {"create": "created", "extend": "extended", "keep": "unchanged"}
    wanted = {"create": "missing", "extend": "too small", "keep": "as wanted"}
    telemetry.emit("init.done", result=f"{sentence}: {(wanted if check else done)[action]}")
