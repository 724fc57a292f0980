"""A server of the local stack as a process of ours: started, awaited, stopped, killed, and never left behind."""

import ctypes
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tasks.errors import LocalStackError

_START_SECONDS = 60
_STOP_SECONDS = 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Server:
    """A server process of ours, its log in a file, stopped by a signal of its liking."""

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
        """Of the running process. Raises AssertionError when it was not started."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process. Only to be called in the main thread: see `_end_with_parent`."""
        with self.log.open("ab") as log:
            # A session of its own, so that Ctrl-C in the terminal reaches only us and we stop it in order.
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def wait(self) -> None:
        """Wait until it answers. Raises LocalStackError with the end of the log."""
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if self._process.poll() is not None:
                raise LocalStackError(f"{self.name} ended while starting: {_last_line(self.log)} (see {self.log})")
            if time.monotonic() > deadline:
                raise LocalStackError(f"{self.name} did not start within {_START_SECONDS} s (see {self.log})")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ask it to stop, and kill it when it does not."""
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
                # PostgreSQL refuses while processes of the killed one have yet to notice its end.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                return


def _end_with_parent() -> None:
    """Runs in the child: on Linux it gets SIGTERM when we are killed, so that nothing stays behind.

    The kernel's "parent" is the thread that started the child (prctl(2)), so that has to be the main one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return re.sub(r"\s+", " ", lines[-1]) if lines else "it wrote nothing"
