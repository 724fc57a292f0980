"""The consumer pod's supervisord: which programs run, in which order, and what `ps` shows of them."""

import configparser
from pathlib import Path

import pytest

from bootstrap.pod.listener import ExitCounter
from bootstrap.pod.supervisor import configuration, programs
from tasks.config import settings
from tasks.config.settings import Settings

DIRECTORY = Path("/run/pod")


def load(**variables: str) -> Settings:
    return settings.load({}, {"DATABASE_URL": "postgresql://me:hunter2@db/x", **variables})


def test_a_redis_runs_only_when_none_is_given() -> None:
    assert [program.name for program in programs(load(), DIRECTORY)] == ["redis", "worker", "bridge"]
    given = load(REDIS_URL="redis://redis/0")
    assert [program.name for program in programs(given, DIRECTORY)] == ["worker", "bridge"]


def test_only_the_bridge_satisfies_the_liveness_probe() -> None:
    shown = {program.name: "consume" in program.command for program in programs(load(), DIRECTORY)}
    assert shown == {"redis": False, "worker": False, "bridge": True}


def test_the_bridge_stops_first_and_redis_last_within_the_grace_period() -> None:
    stopping = sorted(programs(load(), DIRECTORY), key=lambda program: -program.priority)
    assert [program.name for program in stopping] == ["bridge", "worker", "redis"]
    assert sum(program.stop_seconds for program in stopping[:2]) <= 25


def test_supervisord_reads_it_and_no_secret_is_in_it() -> None:
    text = configuration(load(REDIS_URL="redis://:hunter2@redis/0"), DIRECTORY)
    assert "hunter2" not in text
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read_string(text)
    assert "PROCESS_STATE_FATAL" in parsed["eventlistener:listener"]["events"]
    for name in ("worker", "bridge"):
        assert parsed[f"program:{name}"]["autorestart"] == "true"


def test_a_percent_sign_in_a_path_is_no_expansion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/odd%20path/python")
    assert "/odd%%20path/python -m tasks" in configuration(load(), DIRECTORY)


def test_a_program_that_crashes_again_and_again_is_given_up_and_one_that_is_killed_now_and_then_is_not() -> None:
    exits = ExitCounter(most=3, within_seconds=10)
    assert [exits.too_many("bridge", now) for now in (0, 1)] == [False, False]
    assert not exits.too_many("worker", 2)  # each program counts for itself
    assert exits.too_many("bridge", 10)
    assert [exits.too_many("worker", now) for now in (8, 14, 20, 24)] == [False, False, False, True]
