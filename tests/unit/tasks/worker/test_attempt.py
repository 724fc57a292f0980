"""What becomes of a run that failed, and which message a function receives."""

import subprocess
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pydantic
import pytest

from tasks import Reject, Retry
from tasks.declaration import Options
from tasks.store.chunks import Obligation
from tasks.worker import attempt
from tests.programs import ROOT

_NOW = datetime(2026, 1, 31, tzinfo=UTC)


def _raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "options", "number", "retry_in"),
    [
        (ValueError(), {"retry_jitter": False}, 1, 1),
        (ValueError(), {"retry_jitter": False}, 3, 4),
        (ValueError(), {}, 4, None),
        (ValueError(), {"max_retries": 0}, 1, None),
        (ValueError(), {"max_retries": None, "retry_jitter": False}, 10_000, 600),
        (ValueError(), {"retry_backoff": False}, 2, 0),
        (ValueError(), {"retry_backoff": 10, "retry_backoff_max": 15, "retry_jitter": False}, 2, 15),
        (ValueError(), {"autoretry_for": (KeyError,)}, 1, None),
        (KeyError(), {"autoretry_for": (KeyError,), "retry_jitter": False}, 1, 1),
        (Retry(after=7.5), {}, 1, 7.5),
        (Retry(after=7.5), {"max_retries": 0}, 1, None),
        (Retry(), {"autoretry_for": (), "retry_jitter": False}, 2, 2),
        (Reject("no"), {}, 1, None),
    ],
)
def test_a_run_is_retried_by_celerys_rules(
    error: Exception, options: dict[str, Any], number: int, retry_in: float | None
) -> None:
    failure = attempt.failure(_raised(error), Options(on="a", **options), number)
    assert failure.retry_in == retry_in
    assert failure.state == ("failed" if retry_in is None else "retrying")


def test_what_postgresql_cannot_store_is_written_out() -> None:
    failure = attempt.failure(_raised(ValueError("a\0b \ud800")), Options(on="a"), 1)
    assert failure.error == "ValueError: a\\x00b \\ud800"


def test_errors_and_tracebacks_are_bounded() -> None:
    failure = attempt.failure(_raised(ValueError("x" * 10**6)), Options(on="a"), 1)
    assert (len(failure.error), len(failure.traceback)) == (1_000, 10_000)


def _obligation(payload: str | None) -> Obligation:
    return Obligation(1, uuid.uuid4(), "order.paid", None, "orders", 0, 5, _NOW, _NOW, '{"a": "b"}', payload)


class OfMsgspec(msgspec.Struct):
    order: int


class OfPydantic(pydantic.BaseModel):
    order: int


@dataclass
class OfDataclass:
    order: int


@pytest.mark.parametrize("model", [OfMsgspec, OfPydantic, OfDataclass])
def test_a_payload_is_decoded_into_the_model(model: type) -> None:
    message = attempt.to_message(_obligation('{"order": 7}'), model, 2)
    assert isinstance(message.payload, model)
    assert (message.payload.order, message.attempt, message.headers) == (7, 2, {"a": "b"})  # type: ignore[attr-defined]
    for payload in ('{"order": "seven"}', "{}", None):
        with pytest.raises(Reject, match=r"order|null|model_type|object"):
            attempt.to_message(_obligation(payload), model, 1)


def test_without_a_model_the_payload_is_json() -> None:
    assert attempt.to_message(_obligation('[1, {"a": null}]'), None, 1).payload == [1, {"a": None}]
    assert attempt.to_message(_obligation(None), None, 1).payload is None


def test_without_a_collector_a_call_has_no_span() -> None:
    program = """
import sys
from tasks.observability import traces
assert traces.running("t", None) is traces.running("t", None)
assert "opentelemetry" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
