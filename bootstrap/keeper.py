"""supervisord's event listener: ends the pod when a program has gone FATAL, and clears up after the pod.

It speaks the protocol of the supervisor manual, chapter "Events", and is the last program to be stopped.
"""

import os
import shutil
import signal
import sys
from types import FrameType


def main(directory: str) -> None:
    """Wait for the first event, which ends supervisord, our parent; or for our own end. Then remove `directory`."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        sys.stdout.write("READY\n")
        sys.stdout.flush()
        header = sys.stdin.readline()
        if header:
            fields = dict(part.split(":", 1) for part in header.split())
            payload = sys.stdin.read(int(fields["len"]))
            sys.stderr.write(f"a program of the pod cannot be started any more, ending the pod: {payload}\n")
            os.kill(os.getppid(), signal.SIGTERM)
            signal.pause()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
