"""`make run` as the documents tell it: their commands work, Ctrl-C leaves nothing behind, and the data stays."""

import contextlib
import ipaddress
import json
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

from bootstrap.localstack.ports import free_port
from bootstrap.localstack.stack import Stack
from tasks.config.environment import child_environment
from tests.programs import ROOT
from tests.waiting import wait_until

_README_PORT = "8080"


@pytest.fixture
def directory(stack: Stack, tmp_path: Path) -> Path:
    (tmp_path / "kafka-4.4.0").symlink_to(ROOT / ".local" / "kafka-4.4.0")
    return tmp_path


class Local:
    """A running `local`, its output in a file."""

    def __init__(self, directory: Path, port: int, *flags: str, **changed: str) -> None:
        self.output = directory / "output"
        variables = {**child_environment({}), "LOCAL_DIR": str(directory), "PORT": str(port)}
        for outside in ("KAFKA_BROKERS", "DATABASE_URL", "REDIS_URL", "ADDRESS", "API_KEYS"):
            variables.pop(outside, None)
        variables |= {name.upper(): value for name, value in changed.items()}
        command = [sys.executable, "-m", "bootstrap", "local", *flags]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=variables, stdout=output, stderr=output, cwd=ROOT, start_new_session=True
            )

    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, words: str) -> None:
        wait_until(lambda: words in self.text() or self.process.poll() is not None, words, 90)
        assert words in self.text(), self.text()

    def listening(self) -> dict[int, ipaddress.IPv4Address | ipaddress.IPv6Address]:
        """The address of each port that a process of the family listens on."""
        process = psutil.Process(self.process.pid)
        found = []
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):  # such as a probe of Redis that has just ended
                found += [socket for socket in one.net_connections("tcp") if socket.status == "LISTEN"]
        return {port: _plain(host) for host, port in (socket.laddr for socket in found)}

    def press_ctrl_c(self) -> None:
        """SIGINT to the process group, as a terminal does; every process must be gone."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        subprocess.run(["kill", "-INT", "--", f"-{self.process.pid}"], check=True)
        self.process.wait(60)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive


def _plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None  # as Java does it
    return mapped or address


@pytest.fixture
def running(directory: Path) -> Iterator[list[Local]]:
    started: list[Local] = []
    yield started
    for local in started:
        if local.process.poll() is None:
            local.process.send_signal(signal.SIGTERM)
            local.process.wait(60)


def documented_curls() -> list[str]:
    pages = ("README.md", "docs/http-api.md", "docs/getting-started.md")
    return [line for page in pages for line in re.findall(r"^curl .*$", (ROOT / page).read_text(), re.MULTILINE)]


# What the curl lines print, after the first two of the README.
_PRINTED = (
    *('"accepted":2', '"offset":', '"offset":', '"text":"hello"', "greeting", "event: message"),
    *(" 202 ", "order.paid", '"offset":', '"offset":'),
)


def _says(line: list[str], said: str) -> bool:
    return said in subprocess.run(line, capture_output=True, text=True).stdout.replace('": ', '":')


def test_the_readme_works_and_data_survives(directory: Path, running: list[Local]) -> None:
    port = free_port()
    first = Local(directory, port)
    running.append(first)
    first.wait_for("From nothing to the first message stored")
    post, get, *others = (shlex.split(line.replace(_README_PORT, str(port))) for line in documented_curls())
    assert " 202 " in subprocess.run(post, capture_output=True, text=True, check=True).stdout
    wait_until(lambda: '"greeting"' in subprocess.run(get, capture_output=True, text=True).stdout, "it is read back")
    for line, said in zip(others, _PRINTED, strict=True):
        wait_until(partial(_says, line, said), f"{line} says {said}")
    _dead_letter_commands_work(directory)
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


def _dead_letter_commands_work(directory: Path) -> None:
    """The commands of docs/operations.md, on the dead letter that those of docs/getting-started.md made."""
    commands = re.findall(
        r"^python -m bootstrap (dead-letters .*)$", (ROOT / "docs" / "operations.md").read_text(), re.M
    )
    assert [command.split()[1] for command in commands] == ["list", "show", "redrive", "discard", "release"]
    wait_until(lambda: _bootstrap(directory, "dead-letters list --json"), "the dead letter is there")
    letter = json.loads(_bootstrap(directory, "dead-letters list --json"))
    assert letter["reason"] == "id_conflict"
    listed, shown, redriven, *_ = [_bootstrap(directory, command.replace("ID", letter["id"])) for command in commands]
    assert letter["id"] in listed and '"total": 2' in shown and "1" in redriven
    assert _bootstrap(directory, "dead-letters list --json") == ""


def test_a_task_of_ones_own_as_its_page_tells_it(directory: Path, running: list[Local]) -> None:
    page, port = (ROOT / "docs" / "your-own-tasks.md").read_text(), free_port()
    module, *_ = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (directory / "shop").mkdir()
    (directory / "shop" / "tasks.py").write_text(module)
    local = Local(directory, port, tasks="shop.tasks", pythonpath=str(directory))
    running.append(local)
    local.wait_for("From nothing to the first message stored")
    for line in re.findall(r"^curl .*$", page, re.MULTILINE):
        subprocess.run(shlex.split(line.replace(_README_PORT, str(port))), check=True, capture_output=True)
    local.wait_for("receipt for 7, attempt 1")
    local.wait_for("receipt for 9, attempt 1")
    commands = re.findall(r"^python -m bootstrap (runs .*)$", page, re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["list", "show", "retry", "discard"]
    wait_until(lambda: _bootstrap(directory, "runs list --json"), "the run that failed is listed")
    run = json.loads(_bootstrap(directory, "runs list --json"))
    assert (run["task"], run["error"]) == ("shop.tasks.book", "Reject: order 8 has no amount")
    listed, shown, retried, _ = [_bootstrap(directory, command.replace("ID", str(run["id"]))) for command in commands]
    assert "order 8" in listed and "Reject" in shown and "1 are run once more" in retried


def _bootstrap(directory: Path, arguments: str) -> str:
    """What a command prints that finds the servers of the running stack by itself."""
    variables = {**child_environment({}), "LOCAL_DIR": str(directory)}
    for outside in ("KAFKA_BROKERS", "DATABASE_URL", "REDIS_URL"):
        variables.pop(outside, None)
    command = [sys.executable, "-m", "bootstrap", *shlex.split(arguments, comments=True)]
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "using the local stack" in done.stderr, done.stderr
    return done.stdout


def test_a_port_in_use_is_one_sentence(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        local = Local(directory, port)
        assert local.process.wait(30) == 6
    assert local.text().splitlines() == [
        f"python -m bootstrap local: port {port} (--port / PORT) is in use; choose another"
    ]


def test_with_keys_it_says_how_to_use_them_and_listens_on_loopback(directory: Path, running: list[Local]) -> None:
    port, metrics = free_port(), free_port()
    local = Local(directory, port, api_keys="write:secretkey1,read+operate:otherkey2", metrics_port=str(metrics))
    running.append(local)
    local.wait_for("From nothing to the first message stored")
    said = local.text()
    assert "secretkey1" not in said
    assert "otherkey2" not in said
    curls = re.findall(r"^ +(curl .*)$", said, re.MULTILINE)
    assert [curl.count("-H 'Authorization: Bearer KEY'") for curl in curls] == [1, 1]
    for curl, key, answer in zip(curls, ("secretkey1", "otherkey2"), (" 202 ", '"backend.started"'), strict=True):
        assert answer in subprocess.run(shlex.split(curl.replace("KEY", key)), capture_output=True, text=True).stdout
    assert {port, metrics} <= local.listening().keys()
    assert [address for address in local.listening().values() if not address.is_loopback] == []
    assert len(local.listening()) == 6  # Kafka has two
    local.press_ctrl_c()


@pytest.mark.parametrize("changed", [{"api_keys": "read:onlyreads"}, {"max_body_bytes": "10"}])
def test_without_a_first_message_it_says_what_runs_where(
    directory: Path, running: list[Local], changed: dict[str, str]
) -> None:
    port = free_port()
    local = Local(directory, port, "--address", "0.0.0.0", **changed)
    running.append(local)
    local.wait_for("Ctrl-C ends everything")
    assert "From nothing to the first message stored" not in local.text()
    assert f"http://127.0.0.1:{port}    (listens on 0.0.0.0:{port})" in local.text()
    others = {name: address for name, address in local.listening().items() if not address.is_loopback}
    assert others == {port: ipaddress.ip_address("0.0.0.0")}
    local.press_ctrl_c()


def test_an_address_of_another_machine_is_one_sentence(directory: Path, running: list[Local]) -> None:
    local = Local(directory, free_port(), address="192.0.2.1")
    running.append(local)
    assert local.process.wait(30) == 6
    (line,) = local.text().splitlines()
    assert line.startswith("python -m bootstrap local: cannot listen on 192.0.2.1:")
    assert "ADDRESS" in line
