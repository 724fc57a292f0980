"""Tasks are declared with options that make sense, or refused with a sentence that names them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tasks import Message, declaration, task, user_modules
from tasks.errors import ConfigurationError
from tasks.store import task_registry


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(declaration, "_declared", {})
    yield


def _declare(function: Callable[..., Any] | None = None, **options: Any) -> declaration.Task:
    return task(**options)(function or (lambda message: message))


def test_a_task_is_called_like_its_function() -> None:
    doubled = _declare(lambda number: 2 * number, on="order.*", name="double")
    assert doubled(4) == 8
    assert declaration.declared() == [doubled]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "t", "on": ""}, "task t: on must be a pattern"),
        ({"name": "t", "on": "a", "batch": 0}, "task t: batch must be at least 1"),
        ({"name": "t", "on": "a", "time_limit": 0}, "task t: time_limit must be more than 0 seconds"),
        ({"name": "t", "on": "a", "max_retries": -1}, "task t: max_retries must be None or at least 0"),
        ({"name": "t", "on": "a", "retry_backof": 2}, "task t: there is no option retry_backof; did you mean"),
        ({"name": "t", "on": "a", "acks_late": True}, "task t: there is no option acks_late; there are on, topic"),
        ({"name": "t" * 201, "on": "a"}, "a name has at most 200 characters"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        _declare(**options)


def test_an_asynchronous_function_is_refused() -> None:
    async def later(message: Message) -> None: ...

    with pytest.raises(ConfigurationError, match=r"asynchronous functions are not supported.*asyncio\.run"):
        _declare(later, on="a")


def test_two_tasks_of_one_name_are_refused() -> None:
    _declare(lambda _: 1, on="a", name="t")
    with pytest.raises(ConfigurationError, match="two tasks are named t"):
        _declare(lambda _: 2, on="a", name="t")


@pytest.mark.parametrize(
    ("pattern", "like"), [("order.*", "order.%"), ("*", "%"), ("50%_\\", "50\\%\\_\\\\"), ("plain", "plain")]
)
def test_only_the_asterisk_is_special_in_a_pattern(pattern: str, like: str) -> None:
    assert task_registry.like(pattern) == like


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("no_such_module", "module no_such_module cannot be imported: ModuleNotFoundError"),
        ("tests.records", "there is no function with @task"),
    ],
)
def test_a_module_that_cannot_be_used_is_refused(module: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        user_modules.load([module])
