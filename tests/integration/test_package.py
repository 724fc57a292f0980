"""The package as its users install it: a wheel in a fresh environment, used from an empty folder."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.config.environment import child_environment
from tasks.config.version import version
from tests.programs import ROOT

_SOURCES = ("tasks", "bridge", "api", "bootstrap", "pyproject.toml", "requirements.in", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The scripts of a fresh environment that contains the wheel and its dependencies."""
    directory: Path = tmp_path_factory.mktemp("package")
    source = directory / "source"
    source.mkdir()
    for name in _SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)  # building in the checkout would leave files there
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, source)
    [wheel] = directory.glob("*.whl")
    run(sys.executable, "-m", "venv", directory / "venv")
    scripts = directory / "venv" / "bin"
    requirements = ROOT / "requirements.txt"
    run(scripts / "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", requirements, wheel)
    yield scripts


def run(*command: object, cwd: Path = ROOT) -> str:
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, cwd=cwd, env=child_environment({}), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_works_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    program = installed / "message-backend"
    assert run(program, "--version", cwd=tmp_path) == f"{version()}\n"
    assert "message-backend [-h]" in run(program, "--help", cwd=tmp_path)
    for command in ("init", "serve", "consume", "local", "retention", "dead-letters", "lost-records"):
        assert f"message-backend {command}" in run(program, command, "--help", cwd=tmp_path)
    assert run(installed / "python", "-m", "bootstrap", "--version", cwd=tmp_path) == f"{version()}\n"
    modules = "api.app, bootstrap.commands.serve, bootstrap.commands.consume, bootstrap.pod.listener, tasks.worker.app"
    run(installed / "python", "-c", f"import {modules}", cwd=tmp_path)
    files = (
        "from importlib.resources import files as f; print((f('bootstrap') / 'localstack/kafka-4.4.0.lock').is_file())"
    )
    assert run(installed / "python", "-c", files, cwd=tmp_path) == "True\n"


def test_bash_completes_commands_and_flags(installed: Path, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(run(installed / "message-backend", "--print-completion", "bash", cwd=tmp_path))
    assert complete(script, "message-backend", "ret") == ["retention"]
    assert complete(script, "message-backend", "serve", "--cors") == ["--cors-origins"]


def complete(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    function = "$(complete -p message-backend | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
    line = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE='{' '.join(words)}'"
    output = run("bash", "-c", f'source {script}; {line}; "{function}"; printf "%s\\n" "${{COMPREPLY[@]}}"')
    return output.split()
