"""A call of a task becomes a record, and a record a call, or a dead letter with a reason."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks import calls
from tasks.calls import Moments
from tasks.errors import BadRecord
from tasks.message import Headers, Record, record_id

_ID = uuid.UUID("0199a0f0-0000-7000-8000-000000000001")
_AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def _record(headers: Headers | None, value: bytes | None = b'{"order": 7}') -> Record:
    return Record("task-calls", 0, 5, 1, None, value, headers)


def test_what_is_sent_is_read() -> None:
    sent = calls.headers("shop.mail", _ID, Moments(_AT, _AT + timedelta(days=1)))
    call = calls.decode(_record(sent))
    assert call[:3] == (_ID, "shop.mail", '{"order": 7}')
    assert call[4:] == (_AT, _AT + timedelta(days=1))


def test_a_foreign_producer_needs_only_the_name() -> None:
    record = _record([("task", b"shop.mail")], None)
    assert calls.decode(record)[:3] == (uuid.UUID(bytes=record_id(record)), "shop.mail", "null")
    times = [("task", b"t"), ("eta", b"2026-01-31T14:00:00+02:00"), ("expires", b"2026-01-31T12:00:00Z")]
    assert calls.decode(_record(times))[4:] == (_AT, _AT)


@pytest.mark.parametrize(
    ("headers", "value", "reason"),
    [
        ([], b"{}", "bad_header"),
        (None, b"{}", "bad_header"),
        ([("task", b"")], b"{}", "bad_header"),
        ([("task", None)], b"{}", "bad_header"),
        ([("task", b"t" * 201)], b"{}", "bad_header"),
        ([("task", b"t"), ("eta", b"tomorrow")], b"{}", "bad_header"),
        ([("task", b"t"), ("eta", b"2026-01-31T12:00:00")], b"{}", "bad_header"),
        ([("task", b"t"), ("expires", b"0001-01-01T00:00:00+14:00")], b"{}", "bad_header"),
        ([("task", b"t")], b"{", "not_json"),
        ([("task", b"t")], b'"\xff"', "invalid_utf8"),
        ([("task", b"t")], b'"\\u0000"', "nul"),
    ],
)
def test_other_records_are_dead_letters(headers: Headers | None, value: bytes, reason: str) -> None:
    with pytest.raises(BadRecord) as caught:
        calls.decode(_record(headers, value))
    assert caught.value.reason == reason


@dataclass
class _Order:
    number: int
    at: datetime


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"a": [1, None]}, b'{"a":[1,null]}'),
        (_Order(7, _AT), b'{"number":7,"at":"2026-01-31T12:00:00Z"}'),
        (None, b"null"),
    ],
)
def test_payloads_become_json(payload: Any, text: bytes) -> None:
    assert calls.as_json(payload) == text


def test_what_cannot_be_json_is_refused() -> None:
    with pytest.raises(TypeError):
        calls.as_json({"a": object()})


def test_moments_are_celerys() -> None:
    now = datetime.now(UTC)
    later = Moments.of(countdown=60, expires=120)
    assert later.eta is not None and 60 <= (later.eta - now).total_seconds() < 70
    assert later.expires is not None and 120 <= (later.expires - now).total_seconds() < 130
    assert Moments.of(eta=_AT, expires=_AT) == (_AT, _AT)
    with pytest.raises(ValueError, match="exclude each other"):
        Moments.of(countdown=1, eta=_AT)
    with pytest.raises(ValueError, match="eta needs a time zone"):
        Moments.of(eta=datetime(2026, 1, 1))
