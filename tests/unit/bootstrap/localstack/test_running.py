"""A directory belongs to one running stack, and other commands find its servers only while it runs."""

from pathlib import Path

import pytest

from bootstrap import cli
from bootstrap.localstack import running
from tasks.errors import LocalStackError

_SERVERS = {"DATABASE_URL": "postgresql://user:secret@127.0.0.1:1/backend", "KAFKA_BROKERS": "127.0.0.1:2"}


def test_servers_are_found_while_the_stack_runs(tmp_path: Path) -> None:
    with running.locked(tmp_path):
        assert running.variables(tmp_path) == {}
        running.announce(tmp_path, _SERVERS)
        assert running.variables(tmp_path) == _SERVERS
    assert running.variables(tmp_path) == {}
    assert running.variables(tmp_path / "nothing here") == {}


def test_only_the_user_can_read_the_servers_passwords(tmp_path: Path) -> None:
    (tmp_path / "variables.json").write_text("readable by all")
    running.announce(tmp_path, _SERVERS)
    assert (tmp_path / "variables.json").stat().st_mode & 0o777 == 0o600


def test_a_second_stack_on_the_directory_is_refused(tmp_path: Path) -> None:
    with (
        running.locked(tmp_path),
        pytest.raises(LocalStackError, match="already running"),
        running.locked(tmp_path),
    ):
        pass
    with running.locked(tmp_path):
        pass


def test_an_error_of_the_stack_is_not_taken_for_one_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), running.locked(tmp_path):
        raise PermissionError


@pytest.fixture
def used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The flags with which the command runs, beside a running stack."""
    used: dict[str, str] = {}
    monkeypatch.setenv("LOCAL_DIR", str(tmp_path))
    for name in ("DATABASE_URL", "KAFKA_BROKERS", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cli, "_run", lambda *arguments: used.update(arguments[2]))
    return used


@pytest.mark.parametrize("command", ["init", "retention", "dead-letters list"])
def test_a_command_without_a_server_uses_the_running_stack(
    command: str, used: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running.locked(tmp_path):
        running.announce(tmp_path, _SERVERS)
        assert cli.main(command.split()) == 0
    assert used == {"database_url": _SERVERS["DATABASE_URL"], "kafka_brokers": _SERVERS["KAFKA_BROKERS"]}
    captured = capsys.readouterr()
    assert (captured.out, str(tmp_path) in captured.err, "secret" in captured.err) == ("", True, False)


@pytest.mark.parametrize("arguments", [["init", "--kafka-brokers", "elsewhere:9092"], ["serve"]])
def test_a_command_with_a_server_or_a_service_uses_nothing_of_it(
    arguments: list[str], used: dict[str, str], tmp_path: Path
) -> None:
    with running.locked(tmp_path):
        running.announce(tmp_path, _SERVERS)
        assert cli.main(arguments) == 0
    assert "database_url" not in used
