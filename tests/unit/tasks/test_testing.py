"""What users' tests get from the plugin `tasks.testing` without any server."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest

from tasks import Message, Reject, Retry
from tasks.config.environment import child_environment
from tasks.declaration import Options, Task
from tasks.testing import Outcome, message, run_task
from tests.programs import ROOT


def _task(function: Callable[[Any], None], **options: Any) -> Task:
    return Task("t", function, Options(**{"on": "order.*", **options}))


def _received(payload: Any, **options: Any) -> Any:
    received: list[Message] = []
    assert run_task(_task(received.append, **options), message(payload, type="order.paid")).state == "done"
    return received[0].payload


def test_a_message_has_what_a_stored_one_has() -> None:
    first, second = message({"type": "order.paid", "order": 7}), message(None, type="a", key="k", attempt=3)
    assert (first.type, first.topic, first.attempt, first.headers) == ("order.paid", "messages", 1, {})
    assert first.time is not None
    assert (second.type, second.key, second.attempt, second.payload) == ("a", "k", 3, None)
    assert first.id != second.id and first.offset != second.offset


def test_a_run_ends_as_in_a_worker() -> None:
    def function(received: Message) -> None:
        kind, after = received.payload
        if kind != "done":
            raise {"fail": ValueError("why"), "reject": Reject("why"), "retry": Retry("why", after)}[kind]

    task = _task(function, max_retries=1, retry_jitter=False, retry_backoff=4)

    def outcome(kind: str, attempt: int = 1) -> Outcome:
        return run_task(task, message([kind, 7], type="order.paid", attempt=attempt))

    assert outcome("done") == Outcome("done", 1)
    failed = outcome("fail")
    assert (failed.state, failed.attempt, failed.error, failed.retry_in) == ("retrying", 1, "ValueError: why", 4)
    assert "in function" in failed.traceback and "tasks/worker" not in failed.traceback
    assert (outcome("retry").state, outcome("retry").retry_in) == ("retrying", 7)
    assert (outcome("fail", 2).state, outcome("fail", 2).retry_in) == ("failed", None)
    assert (outcome("reject").state, outcome("reject").error) == ("failed", "Reject: why")


class OfMsgspec(msgspec.Struct):
    amount: Decimal


class OfPydantic(pydantic.BaseModel):
    amount: Decimal


@dataclass
class OfDataclass:
    amount: Decimal


@pytest.mark.parametrize("model", [OfMsgspec, OfPydantic, OfDataclass])
def test_a_payload_is_what_comes_from_kafka(model: Callable[..., Any]) -> None:
    assert _received({"amount": "20.5"}, model=model) == model(amount=Decimal("20.5"))
    assert _received(model(amount=Decimal("20.5")), model=model) == model(amount=Decimal("20.5"))
    assert _received(model(amount=Decimal("20.5"))) == {"amount": "20.5"}
    assert _received((1, {"a": None})) == [1, {"a": None}]
    task = _task(lambda _: None, model=model)
    outcome = run_task(task, message({"amount": []}, type="order.paid"))
    assert outcome.state == "failed" and outcome.error.startswith("Reject") and "amount" in outcome.error


def test_a_batch_is_called_as_a_whole_without_what_does_not_fit() -> None:
    calls: list[list[int]] = []

    def function(messages: Sequence[Message]) -> None:
        calls.append([one.payload for one in messages])
        if 5 in calls[-1]:
            raise ValueError

    task = _task(function, batch=3, model=int, max_retries=0)
    several = [message(payload, type="order.paid") for payload in (1, "two", 3, 4, 5, 6, 7)]
    outcomes = [outcome.state for outcome in run_task(task, several)]
    assert calls == [[1, 3], [4, 5, 6], [7]]
    assert outcomes == ["done", "failed", "done", "failed", "failed", "failed", "done"]
    assert run_task(task, []) == []


@pytest.mark.parametrize(
    ("options", "fields", "runs"),
    [
        ({"on": "order.*"}, {"type": "order.paid"}, True),
        ({"on": "order.*"}, {"type": "orders"}, False),
        ({"on": "order?"}, {"type": "orders"}, False),
        ({"on": ("a", "b")}, {"type": "b"}, True),
        ({"on": "*"}, {"type": None}, False),
        ({"on": None, "topic": "orders"}, {"type": None, "topic": "orders"}, True),
        ({"on": "*", "topic": "orders"}, {"type": "a"}, False),
        ({"on": None}, {"type": "a"}, False),
        ({"on": None}, {"topic": None}, True),
    ],
)
def test_a_message_that_the_task_does_not_want_is_a_mistake(
    options: dict[str, Any], fields: dict[str, Any], runs: bool
) -> None:
    task = _task(lambda _: None, **options)
    if runs:
        assert run_task(task, message(**fields)).state == "done"
    else:
        with pytest.raises(ValueError, match="does not run for type"):
            run_task(task, message(**fields))


def test_a_time_limit_holds_and_the_timer_of_the_test_goes_on() -> None:
    def function(received: Message) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            pass

    handler = signal.getsignal(signal.SIGALRM)
    remaining, _ = signal.setitimer(signal.ITIMER_REAL, 500)
    try:
        outcome = run_task(_task(function, time_limit=0.05), message(type="order.paid"))
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 400
    finally:
        signal.setitimer(signal.ITIMER_REAL, remaining)
    assert outcome.error == "TimeLimitExceeded: it exceeded its time limit"
    assert signal.getsignal(signal.SIGALRM) is handler


def test_a_project_is_tested_as_its_page_tells_it(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "your-own-tasks.md").read_text()
    module, _, conftest, tests = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "tasks.py").write_text(module)
    (tmp_path / "conftest.py").write_text(conftest.replace("shop.tasks", ""))
    (tmp_path / "test_shop.py").write_text(tests)
    variables = {**child_environment({}), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error::pytest.PytestWarning", "-m", "pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert "1 passed, 1 error" in done.stdout, done.stdout
    assert "set TASKS, or let the fixture backend_settings return it" in done.stdout
