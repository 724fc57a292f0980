"""The thread that queues Celery tasks for the users' tasks."""

import pytest

from tasks.worker import dispatcher
from tasks.worker.dispatcher import Dispatcher
from tasks.worker.wakes import Wakes
from tests.world import World

_NAMES = [f"task-{number}" for number in range(5)]


def test_tasks_have_turns_when_all_of_them_always_have_something_to_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_APART_SECONDS", 0.0)  # as if each Celery task took longer than that
    queued: list[str] = []
    tested = Dispatcher("owner", _NAMES, [], queued.append, Wakes(world.settings()), ["empty"], 1, 600)
    for _ in range(10):
        tested._wanted.update(dict.fromkeys(_NAMES, 1))
        tested._dispatch()
    assert sorted(queued) == sorted(2 * _NAMES)
