"""Calls of the users' tasks by code: each is a record of a topic of their own, which the bridge stores as a run.

A record's header `task` has the name of the task, its value is the payload, as JSON. It may have the headers
`message-id`, a UUID by which a repeated call is known, and `eta` and `expires`, times of ISO 8601 with a time zone.
"""

import functools
import os
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from uuid_utils import uuid7

from tasks.config import settings as configuration
from tasks.errors import BadRecord
from tasks.json_value import parse
from tasks.message import (
    ID_HEADER,
    NO_BODY,
    Headers,
    Record,
    headers_json,
    record_id,
    sender_id,
    text_of,
    unreadable_headers,
)
from tasks.store import calls as stored_calls
from tasks.store.calls import Call
from tasks.store.connection import database

TASK_HEADER, ETA_HEADER, EXPIRES_HEADER = "task", "eta", "expires"
LONGEST_NAME = 200  # of a task, so that it fits labels and indexes


class Moments(NamedTuple):
    """When a call is run at the earliest, and until when at the latest; None: at once, for ever."""

    eta: datetime | None = None
    expires: datetime | None = None

    @classmethod
    def of(
        cls,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
    ) -> "Moments":
        """From what Celery takes: `countdown` in seconds, or `eta`; `expires` in seconds, or a time.

        Raises ValueError for a time without a time zone, and for both a countdown and an eta.
        """
        if countdown is not None and eta is not None:
            raise ValueError("countdown and eta exclude each other")
        due = eta if countdown is None else _from_now(countdown)
        ends = expires if expires is None or isinstance(expires, datetime) else _from_now(expires)
        for name, moment in (("eta", due), ("expires", ends)):
            if moment is not None and moment.utcoffset() is None:
                raise ValueError(f"{name} needs a time zone, for example datetime.now(UTC)")
        return cls(due, ends)


def send(task: str, payload: Any, task_id: str | uuid.UUID | None, moments: Moments) -> uuid.UUID:
    """Call a task; returns the id of the call once all in-sync replicas of Kafka have it.

    In the transaction of a task with `transaction=True` it is a part of that transaction. Raises TypeError for
    a payload that cannot be JSON, ValueError for a `task_id` that is not a UUID, and a BackendError: BadRecord for JSON
    that PostgreSQL cannot store, and others if Kafka does not take it.
    """
    call_id = uuid.UUID(str(uuid7() if task_id is None else task_id))
    value = as_json(payload)
    parse(value)
    if _is_lent():
        stored_calls.add([Call(call_id, task, value.decode(), None, *moments)])
    else:
        # After a fork a producer does not work.
        _producer_of(os.getpid())(headers(task, call_id, moments), value)
    return call_id


def headers(task: str, call_id: uuid.UUID, moments: Moments) -> list[tuple[str, bytes]]:
    """The headers of a call's record."""
    named = [(TASK_HEADER, task), (ID_HEADER, str(call_id))]
    times = ((ETA_HEADER, moments.eta), (EXPIRES_HEADER, moments.expires))
    named += [(name, moment.astimezone(UTC).isoformat()) for name, moment in times if moment is not None]
    return [(name, text.encode()) for name, text in named]


def decode(record: Record) -> Call:
    """The call in a record. Raises BadRecord: invalid_utf8, not_json, nul, bad_header."""
    if record.headers is None:
        raise unreadable_headers()
    given = dict(record.headers)
    name = text_of(given.get(TASK_HEADER) or b"")
    if not 0 < len(name) <= LONGEST_NAME:
        raise BadRecord("bad_header", f"the header {TASK_HEADER} must have the name of a task")
    value = record.value or b"null"
    parse(value)
    return Call(
        uuid.UUID(bytes=sender_id(record.headers, NO_BODY) or record_id(record)),
        name,
        value.decode(),
        headers_json(record.headers).decode(),
        _time(given, ETA_HEADER),
        _time(given, EXPIRES_HEADER),
    )


def as_json(payload: Any) -> bytes:
    """A payload as JSON: of a dict, a list, a dataclass, a msgspec.Struct, a pydantic model. Raises TypeError."""
    dump = getattr(payload, "model_dump_json", None)
    return msgspec.json.encode(payload) if dump is None else dump().encode()


def _from_now(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _time(given: Mapping[str, bytes | None], name: str) -> datetime | None:
    raw = given.get(name)
    if raw is None:
        return None
    text = text_of(raw)
    try:
        moment = datetime.fromisoformat(text)
        if moment.utcoffset() is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        detail = f"the header {name} must be a time such as 2026-01-31T12:00:00Z, not {text[:50]!r}"
        raise BadRecord("bad_header", detail) from None


def _is_lent() -> bool:
    return not database.is_closed() and bool(database.connection().lent)


@functools.lru_cache(maxsize=1)
def _producer_of(process: int) -> Callable[[Headers, bytes], Any]:
    # Here, because this needs no Kafka client in code that only declares tasks.
    from bridge.kafka.publisher import KafkaPublisher

    settings = configuration.load()
    publisher = KafkaPublisher(settings, linger_ms=0)  # callers wait for each call, so no others join it
    return lambda given, value: publisher.send(settings.kafka_calls_topic, None, value, given)()
