"""Real processes of the backend, as tests start, watch and end them."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import psutil
import requests

from tasks.config.environment import child_environment
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
NEVER = "600"  # the deadline of a batch, seconds, for tests that must not depend on it
ABSENT = "(absent)"  # takes a variable away from a process


def peak_bytes(process: psutil.Process) -> int:
    """The most memory that a process ever had (VmHWM)."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


class Program:
    """A real process of ours; its log lines are JSON, one fact each."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = Path(tempfile.mkstemp(prefix=f"{name}-", suffix=".log")[1])
        with self.log.open("ab") as log:  # supervisord opens it again: with append no line overwrites another
            command = [sys.executable, "-m", "bootstrap", *arguments]
            self.process = subprocess.Popen(command, env=dict(environment), stdout=log, stderr=log, cwd=ROOT)

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """The log lines so far, of one event or all; lines that are not JSON are left out."""
        raw = [line for line in self.log.read_bytes().splitlines() if line.startswith(b"{") and line.endswith(b"}")]
        parsed: list[dict[str, Any]] = [orjson.loads(line) for line in raw]
        return [line for line in parsed if event in (None, line["event"])]

    def family(self) -> list[psutil.Process]:
        """The process and all it started."""
        try:
            return [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def child(self, part: str) -> psutil.Process:
        """The process in the family whose command line contains `part`."""
        return next(one for one in self.family() if part in " ".join(one.cmdline()))

    def stop(self, seconds: float = 30) -> int:
        """Send SIGTERM; returns the exit code. Fails if it does not end in time or leaves a process behind."""
        family = self.family()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive, f"{self.name} left processes behind: {alive}"
        return code

    def end(self) -> None:
        """SIGKILL it and all it started."""
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)
        self.process.wait(10)


class Programs:
    """The processes of one test. `variables` are the settings of each of them."""

    variables: dict[str, str]
    url: str  # of the API

    def __init__(self) -> None:
        self.programs: list[Program] = []

    def run(self, *arguments: str, **changed: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of ours to its end."""
        command = [sys.executable, "-m", "bootstrap", *arguments]
        return subprocess.run(
            command, env=self._environment(changed), capture_output=True, text=True, cwd=ROOT, timeout=90
        )

    def run_code(self, code: str) -> str:
        """What Python code of the users prints, in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-c", code], env=self._environment({}), stdout=subprocess.PIPE, cwd=ROOT, timeout=90
        )
        assert done.returncode == 0
        return done.stdout.decode()

    def start(self, *arguments: str, **changed: str) -> Program:
        """Start a command of ours; it is stopped when the test ends."""
        program = Program(arguments[0], arguments, self._environment(changed))
        self.programs.append(program)
        return program

    def serve(self, **changed: str) -> Program:
        """Start the API and wait until it answers."""
        program = self.start("serve", **changed)
        wait_until(lambda: _answers(f"{self.url}/health"), "the API answers")
        return program

    def consume(self, *arguments: str, **changed: str) -> Program:
        """Start the consumer pod and wait until it has its partitions."""
        program = self.start("consume", *arguments, **changed)
        wait_until(lambda: program.lines("partitions.assigned"), "the bridge has partitions")
        return program

    def end_programs(self) -> None:
        """Kill what the test left running: other tests check that programs end in order."""
        for program in self.programs:
            program.end()

    def show_logs(self) -> None:
        """Print the last lines of all programs."""
        for program in self.programs:
            print(f"--- {program.log}", *program.log.read_text(errors="replace").splitlines()[-25:], sep="\n")

    def _environment(self, changed: Mapping[str, str]) -> dict[str, str]:
        merged = {**child_environment({}), **self.variables}
        for name, value in changed.items():
            merged[name.upper()] = value
        return {name: value for name, value in merged.items() if value != ABSENT}


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.ConnectionError:
        return False


def signalled(process: psutil.Process, number: int) -> None:
    """Send a signal to one process, ours, by its pid."""
    os.kill(process.pid, number)
