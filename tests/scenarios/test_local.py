"""`make run` as the README tells it: its curl lines work, Ctrl-C leaves nothing behind, and the data stays."""

import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from bootstrap.stack import Stack, free_port
from tasks import settings
from tests.waiting import wait_until
from tests.world import ROOT

_README_PORT = "8080"


@pytest.fixture
def directory(stack: Stack, tmp_path: Path) -> Path:
    (tmp_path / "kafka-4.4.0").symlink_to(ROOT / ".local" / "kafka-4.4.0")
    return tmp_path


class Local:
    """A running `local`, its output in a file."""

    def __init__(self, directory: Path, port: int) -> None:
        self.output = directory / "output"
        variables = {**settings.child_environment({}), "LOCAL_DIR": str(directory), "PORT": str(port)}
        for outside in ("KAFKA_BROKERS", "DATABASE_URL", "REDIS_URL"):
            variables.pop(outside, None)
        command = [sys.executable, "-m", "bootstrap", "local"]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=variables, stdout=output, stderr=output, cwd=ROOT, start_new_session=True
            )

    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, words: str) -> None:
        wait_until(lambda: words in self.text() or self.process.poll() is not None, words, 90)
        assert words in self.text(), self.text()

    def press_ctrl_c(self) -> None:
        """SIGINT to the process group, as a terminal does; every process must be gone."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        subprocess.run(["kill", "-INT", "--", f"-{self.process.pid}"], check=True)
        self.process.wait(60)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive


@pytest.fixture
def running(directory: Path) -> Iterator[list[Local]]:
    started: list[Local] = []
    yield started
    for local in started:
        if local.process.poll() is None:
            local.process.send_signal(signal.SIGTERM)
            local.process.wait(60)


def readme_curls() -> list[str]:
    return re.findall(r"^curl .*$", (ROOT / "README.md").read_text(), re.MULTILINE)


_SAID = ('"accepted":2', '"offset":', '"offset":', '"text":"hello"', "greeting", "event: message")  # by the curl lines


def _says(line: list[str], said: str) -> bool:
    return said in subprocess.run(line, capture_output=True, text=True).stdout.replace('": ', '":')


def test_the_readme_works_and_data_survives(directory: Path, running: list[Local]) -> None:
    port = free_port()
    first = Local(directory, port)
    running.append(first)
    first.wait_for("From nothing to the first message stored")
    post, get, *others = (shlex.split(line.replace(_README_PORT, str(port))) for line in readme_curls())
    assert " 202 " in subprocess.run(post, capture_output=True, text=True, check=True).stdout
    wait_until(lambda: '"greeting"' in subprocess.run(get, capture_output=True, text=True).stdout, "it is read back")
    for line, said in zip(others, _SAID, strict=True):
        wait_until(partial(_says, line, said), f"{line} says {said}")
    first.press_ctrl_c()

    second = Local(directory, port)
    running.append(second)
    second.wait_for("Try it:")
    assert '"greeting"' in subprocess.run(get, capture_output=True, text=True).stdout
    refused = subprocess.run(
        [sys.executable, "-m", "bootstrap", "local", "--local-dir", str(directory), "--port", str(free_port())],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (refused.returncode, "already running" in refused.stderr) == (6, True)
    second.press_ctrl_c()


def test_a_port_in_use_is_one_sentence(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        local = Local(directory, port)
        assert local.process.wait(30) == 6
    assert local.text().splitlines() == [f"bootstrap local: port {port} (--port / PORT) is in use; choose another"]
