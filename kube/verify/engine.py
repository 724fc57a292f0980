"""podman commands for a busy machine: they may be slow, and their time counts for no pod."""

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.config.version import version
from tests.waiting import wait_until

IMAGE = f"localhost/message-backend:{version()}"
NETWORK = "backend-verify"
_SUBNET, GATEWAY = "10.89.77.0/24", "10.89.77.1"
_COMMAND_SECONDS = 120  # for commands that need less than a second on an idle machine
_PODMAN_SECONDS = 2  # of podman's own time, which need not be measured
_SHARE = "10000"  # 10 times the default of control groups v1, 100 times that of v2


def podman(*arguments: str, seconds: float = _COMMAND_SECONDS) -> str:
    """The output of podman; fails with its error message."""
    done = _run(*arguments, seconds=seconds)
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def execute(name: str, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a container."""
    return _run("exec", name, *command)


@contextlib.contextmanager
def running(name: str, *command: str) -> Iterator[None]:
    """Run a command in a container: enters when it begins, exits when it has ended. Raises AssertionError."""
    announced = ("sh", "-c", 'echo begun && exec "$@"', "sh", *command)
    with subprocess.Popen(["podman", "exec", name, *announced], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), f"{name} does not run {' '.join(command)}"
        yield
        assert process.wait(_COMMAND_SECONDS) == 0, f"{' '.join(command)} failed in {name}"


def logs(name: str) -> str:
    """The whole output of a container."""
    done = _run("logs", name)
    return done.stdout + done.stderr


def probe(name: str, command: Sequence[str], seconds: float) -> str:
    """Run a probe's command, which may take `seconds`; returns the reason of a failure, or None.

    podman's own time does not count. A command that does nothing measures it, where that matters.
    """
    try:
        done, took = _timed(name, command)
        late = took > seconds + _PODMAN_SECONDS and took - _timed(name, ["true"])[1] > seconds
    except subprocess.TimeoutExpired:
        return "timeout"
    if done.returncode:
        return f"exit code {done.returncode}"
    return "timeout" if late else ""


def remove(name: str) -> None:
    """Kill and remove a container."""
    _remove("container", name, "rm", "-f", "-i", "-t", "1")


def _remove(kind: str, name: str, *command: str) -> None:
    """Repeat `command` until `name` is gone: podman fails while it cleans up after an ended container."""

    def gone() -> bool:
        _run(*command, name)
        return _run(kind, "exists", name).returncode == 1

    wait_until(gone, f"podman has removed {kind} {name}", _COMMAND_SECONDS)


@contextlib.contextmanager
def network() -> Iterator[str]:
    """A network whose gateway, this machine, has its address while a container runs; returns the address."""
    remove("verify-pause")
    _remove("network", NETWORK, "network", "rm", "-f", "-t", "0")
    podman("network", "create", "--subnet", _SUBNET, NETWORK)
    podman("run", "-d", "--name", "verify-pause", "--network", NETWORK, "--entrypoint", "sleep", IMAGE, "infinity")
    _guarantee(podman("inspect", "-f", "{{.State.CgroupPath}}", "verify-pause"))
    try:
        yield GATEWAY
    finally:
        _remove("network", NETWORK, "network", "rm", "-f", "-t", "0")


def _guarantee(group: str) -> None:
    """Give the containers the CPU that their limits allow, whatever else this machine does.

    A node guarantees each pod its CPU request. podman gives all containers together the weight of one program.
    """
    parent = Path(group.lstrip("/")).parent
    for weight in (Path("/sys/fs/cgroup/cpu", parent, "cpu.shares"), Path("/sys/fs/cgroup", parent, "cpu.weight")):
        if parent.name and weight.exists():  # of one version of control groups
            weight.write_text(_SHARE)


def _timed(name: str, command: Sequence[str]) -> tuple["subprocess.CompletedProcess[str]", float]:
    began = time.monotonic()
    return execute(name, *command), time.monotonic() - began


def _run(*arguments: str, seconds: float = _COMMAND_SECONDS) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=seconds)
