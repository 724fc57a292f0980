"""`init`: waits for the services, then brings topics and tables to what the settings want."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from bridge import topics
from tasks import database, schema, schema_keys, telemetry
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
    tables = _wait("postgresql", deadline, lambda: _tables(settings.payload_index == "on", check))
    for sentence in tables:
        _report(sentence, "create", check)
    if not any(sentence.startswith("tables: ") for sentence in tables):
        _report(f"tables: version {schema.LATEST}", "keep", check)
    missing = len(tables) + sum(step.action in ("create", "extend") for step in steps)
    if check and missing:
        raise NotReady(f"{missing} step(s) are missing; run init without --check")
    telemetry.emit("init.done", result=f"{missing} step(s) done" if missing else "nothing to do")


def _tables(index: bool, check: bool) -> list[str]:
    """What was missing in PostgreSQL, a sentence for each; made unless `check`. Raises NotReady and other errors."""
    with database.session():
        schema.require_not_newer()
        there = schema.version()
        pending = [step for step in schema.MIGRATIONS if step.version > there] if check else schema.upgrade()
        missing = [f"tables: version {step.version}, {step.summary}" for step in pending]
        if not (check and pending):  # else the tables are missing, or have the keys of another version
            keys = schema_keys.missing() if check else schema_keys.restore()
            missing += [f"unique key of {schema_keys.describe(table)}" for table in keys]
            if schema.restored():
                missing.append("order of messages that were restored from another server")
                if not check:
                    schema.renumber()
        if index != (there > 0 and schema.has_payload_index()):
            missing.append(f"index of payloads: {'on' if index else 'off'}")
            if not check:
                schema.index_payloads(index)
        return missing


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
