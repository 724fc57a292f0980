"""supervisord's event listener: says what happens in the pod, ends a pod that does not heal, and clears up after it.

It is the last program to be stopped. The protocol is that of the supervisor manual, chapter "Events".
"""

import os
import shutil
import signal
import sys
import time
from collections import defaultdict, deque
from types import FrameType

from supervisor import childutils

from tasks import settings, telemetry

EVENTS = "PROCESS_STATE_EXITED,PROCESS_STATE_BACKOFF,PROCESS_STATE_FATAL,PROCESS_LOG_STDOUT"
_MOST_ENDS = 20  # of one program
_WITHIN_SECONDS = 600.0


class Ends:
    """How often each program ended lately: what crashes again and again is not healed by one more start.

    supervisord counts only ends in the first seconds, and where the processor is scarce a crash comes later.
    """

    def __init__(self, most: int = _MOST_ENDS, within_seconds: float = _WITHIN_SECONDS) -> None:
        self._within = within_seconds
        self._times: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=most))

    def too_many(self, program: str, now: float) -> bool:
        """Count one more end; whether the last of them came within the time."""
        times = self._times[program]
        times.append(now)
        return len(times) == times.maxlen and now - times[0] <= self._within


def main(directory: str) -> None:
    """Answer supervisord's events until it ends us; then remove `directory`."""
    signal.signal(signal.SIGTERM, _leave)
    telemetry.configure(settings.load(), "keeper", sys.stderr.fileno())  # stdout speaks the protocol
    sys.stdin.reconfigure(encoding="latin-1")  # type: ignore[union-attr]  # lengths are in bytes
    ends = Ends()
    try:
        while True:
            _take(ends)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _take(ends: Ends) -> None:
    try:
        header, payload = childutils.listener.wait(sys.stdin, sys.stdout)
    except KeyError:  # the library's word for the end of the stream
        sys.exit("supervisord is gone")
    fields, said = childutils.eventdata(payload + "\n")
    event, program = header["eventname"], fields["processname"]
    if event == "PROCESS_LOG_STDOUT":
        for line in filter(None, said.splitlines()):
            telemetry.emit("program.said", program=program, line=line)
    elif fields.get("expected") != "1":
        telemetry.emit("program.ended", program=program)
        if event == "PROCESS_STATE_FATAL" or ends.too_many(program, time.monotonic()):
            telemetry.emit("pod.given_up", program=program)
            os.kill(os.getppid(), signal.SIGTERM)
    childutils.listener.ok(sys.stdout)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
