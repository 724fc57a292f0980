"""supervisord's event listener: logs what happens in the pod, ends a pod that does not recover, removes its files.

It is the last program to be stopped. The protocol is described in the supervisor manual, chapter "Events".
"""

import os
import shutil
import signal
import sys
import time
from collections import defaultdict, deque
from types import FrameType

from supervisor import childutils

from tasks.config import settings
from tasks.observability import events

EVENTS = "PROCESS_STATE_EXITED,PROCESS_STATE_BACKOFF,PROCESS_STATE_FATAL,PROCESS_LOG_STDOUT"
_MAX_EXITS = 20  # of one program
_WITHIN_SECONDS = 600.0


class ExitCounter:
    """Counts the recent exits of each program, to recognize one that restarts do not help.

    supervisord counts only exits in the first seconds, and on a slow machine a crash happens later than that.
    """

    def __init__(self, most: int = _MAX_EXITS, within_seconds: float = _WITHIN_SECONDS) -> None:
        self._within = within_seconds
        self._times: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=most))

    def too_many(self, program: str, now: float) -> bool:
        """Count an exit; True when the last `most` exits of the program happened within the time."""
        times = self._times[program]
        times.append(now)
        return len(times) == times.maxlen and now - times[0] <= self._within


def main(directory: str) -> None:
    """Handle supervisord's events until SIGTERM; then remove `directory`."""
    signal.signal(signal.SIGTERM, _exit)
    events.configure(settings.load(), "listener", sys.stderr.fileno())  # stdout carries the protocol
    sys.stdin.reconfigure(encoding="latin-1")  # type: ignore[union-attr]  # lengths are in bytes
    exits = ExitCounter()
    try:
        while True:
            _handle_event(exits)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        events.emit("process.stopped")


def _handle_event(exits: ExitCounter) -> None:
    try:
        header, payload = childutils.listener.wait(sys.stdin, sys.stdout)
    except KeyError:  # raised by the library at the end of the stream
        sys.exit("supervisord has ended")
    fields, output = childutils.eventdata(payload + "\n")
    event, program = header["eventname"], fields["processname"]
    if event == "PROCESS_LOG_STDOUT":
        for line in filter(None, output.splitlines()):
            events.emit("program.output", program=program, line=line)
    elif fields.get("expected") != "1":
        events.emit("program.exited", program=program)
        if event == "PROCESS_STATE_FATAL" or exits.too_many(program, time.monotonic()):
            events.emit("pod.failed", program=program)
            os.kill(os.getppid(), signal.SIGTERM)
    childutils.listener.ok(sys.stdout)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
