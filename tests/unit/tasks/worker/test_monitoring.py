"""What Celery's own tools may see of a worker, and do to it."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.control import Panel

from tasks.worker import monitoring


def test_commands_that_change_a_worker_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Panel, "data", dict(Panel.data))
    monitoring.only_look()
    changing = {name for name, command in Panel.meta.items() if command.type == "control"}
    assert {"shutdown", "revoke", "time_limit"} < changing
    refused = {name for name, command in Panel.data.items() if command is monitoring.refuse}
    assert changing - refused == {"enable_events", "disable_events"}
    assert not {"ping", "active", "stats", "registered", "active_queues"} & refused


@pytest.mark.parametrize(
    ("hostname", "shown"),
    [
        ("redis.example", "redis.example"),
        ("redis+socket://:secret@/run/redis.sock", "redis+socket://:**@/run/redis.sock"),
    ],
)
def test_no_password_is_shown(hostname: str, shown: str) -> None:
    def stats() -> dict[str, Any]:
        return {"pid": 1, "broker": {"hostname": hostname}}

    state = SimpleNamespace(consumer=SimpleNamespace(controller=SimpleNamespace(stats=stats)))
    assert monitoring.stats(state) == {"pid": 1, "broker": {"hostname": shown}}


def test_workers_have_different_names() -> None:
    names = {monitoring.node_name("worker") for _ in range(100)}
    assert len(names) == 100 and all(name.startswith("worker@%h.") for name in names)
