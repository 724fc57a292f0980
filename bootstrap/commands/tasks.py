"""`tasks`: lists the users' tasks with what waits for them; pauses, resumes and retires one."""

from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any

import orjson

from bootstrap.commands.terminal import plain, table, while_read
from tasks.config.settings import Settings
from tasks.errors import ConfigurationError
from tasks.store import connection, migrations, task_registry, task_status
from tasks.store.task_status import TaskStatus


def run(settings: Settings, flags: Mapping[str, str], action: str, **options: Any) -> None:
    """Run an action of `actions.py`. Raises ConfigurationError, NotReady, Unavailable, AccessDenied."""
    connection.configure(settings.database_url, "tasks-command", connections=1)
    with while_read(), connection.session():
        migrations.require_latest()
        _ACTIONS[action](**options)


def _list(as_json: bool) -> None:
    found = task_status.all_tasks()
    if as_json:
        for task in found:
            print(orjson.dumps(task._asdict()).decode())
        return
    heads = ("task", "types", "topic", "state", "waiting", "oldest", "calls", "retrying", "failed")
    table([heads, *map(_cells, found)])


def _cells(task: TaskStatus) -> tuple[str, ...]:
    state = f"paused: {task.paused}" if task.paused is not None else "retired" if task.retired else "active"
    oldest = "-" if task.oldest is None else task.oldest.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    types = "any" if task.patterns is None else " ".join(task.patterns).replace("%", "*")
    about = (
        plain(task.name),
        plain(types),
        plain(task.topic or "any"),
        plain(state),
        _count(task, task.waiting),
        oldest,
    )
    return *about, *(_count(task, number) for number in (task.calls, task.retrying, task.failed))


def _count(task: TaskStatus, number: int) -> str:
    return f"{number}+" if task.at_least and number >= task_status.COUNTED else str(number)


def _pause(name: str, note: str) -> None:
    _known(name)
    print(f"{name} is paused" if task_status.pause(name, note) else f"{name} was paused already")


def _resume(name: str) -> None:
    _known(name)
    print(f"{name} runs again" if task_status.resume(name) else f"{name} was not paused")


def _retire(name: str) -> None:
    _known(name)
    print(f"{name} is retired" if task_registry.retire(name) else f"{name} was retired already")


def _known(name: str) -> None:
    known = task_status.names()
    if name not in known:
        raise ConfigurationError(f"there is no task {name}; there are: {', '.join(known) or 'none'}")


_ACTIONS: dict[str, Callable[..., None]] = {"list": _list, "pause": _pause, "resume": _resume, "retire": _retire}
