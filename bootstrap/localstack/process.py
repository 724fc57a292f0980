"""A server of the local stack as a child process, which never outlives us."""

import ctypes
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tasks.errors import LocalStackError

_START_SECONDS = 120  # Kafka needs 5 s, and more than 60 on a machine that is very busy
_STOP_SECONDS = 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ServerProcess:
    """A server process with a log file and a signal that stops it."""

    def __init__(
        self, name: str, command: list[str], log: Path, ready: Callable[[], bool], stop_signal: int = signal.SIGTERM
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._ready = ready
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the running process. Raises AssertionError if it was not started."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process. Call it only in the main thread: see `_end_with_parent`."""
        with self.log.open("ab") as log:
            # Its own session, so that Ctrl-C in the terminal reaches only us, and we stop the servers in order.
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def wait(self) -> None:
        """Wait until it responds. Raises LocalStackError with the end of the log."""
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if self._process.poll() is not None:
                raise LocalStackError(f"{self.name} ended while starting: {_last_line(self.log)} (see {self.log})")
            if time.monotonic() > deadline:
                raise LocalStackError(f"{self.name} did not start within {_START_SECONDS} s (see {self.log})")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ask it to stop, and kill it if it does not."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Start it again on the same port and data, after a kill. Raises LocalStackError."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self.start()
            try:
                self.wait()
            except LocalStackError:
                # PostgreSQL refuses to start while child processes of the killed one still run.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                return


def _end_with_parent() -> None:
    """Runs in the child: on Linux it gets SIGTERM when we are killed, so that no server is left behind.

    For the kernel the parent is the thread that started the child (prctl(2)), so it must be the main thread.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return re.sub(r"\s+", " ", lines[-1]) if lines else "it wrote nothing"
