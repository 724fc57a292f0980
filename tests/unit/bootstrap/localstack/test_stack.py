"""What the local stack decides without starting a server."""

import platform
import socket

import pytest

from bootstrap.localstack import ports, stack
from tasks.errors import LocalStackError


def test_a_cluster_id_is_never_taken_for_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["-AAAAAAAAAAAAAAAAAAAAA", "-BBBBBBBBBBBBBBBBBBBBB", "CCCCCCCCCCCCCCCCCCCCCC"])
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: next(drawn))
    assert stack.cluster_id() == "CCCCCCCCCCCCCCCCCCCCCC"


def test_an_unsupported_platform_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    stack.check_platform()
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    with pytest.raises(LocalStackError, match="Linux and macOS"):
        stack.check_platform()


def test_a_full_disk_and_a_read_only_one_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("full")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5_000_000}))
    with pytest.raises(LocalStackError, match="has 5 MB free; 1000 MB are needed"), stack.Stack(directory, {}):
        pass
    (directory / "file").touch()
    with pytest.raises(LocalStackError, match="cannot write to"), stack.Stack(directory / "file" / "sub", {}):
        pass


def test_a_port_in_use_is_not_free() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        assert not ports.is_free(taken.getsockname()[1])
    assert ports.is_free(ports.free_port())
