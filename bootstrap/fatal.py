"""supervisord's event listener: ends the pod when a program has gone FATAL (supervisor manual, "Events")."""

import os
import signal
import sys


def main() -> None:
    """Speak the listener's protocol on stdin and stdout; the first event ends supervisord, our parent."""
    sys.stdout.write("READY\n")
    sys.stdout.flush()
    header = sys.stdin.readline()
    if header:
        fields = dict(part.split(":", 1) for part in header.split())
        payload = sys.stdin.read(int(fields["len"]))
        sys.stderr.write(f"a program of the pod cannot be started any more, ending the pod: {payload}\n")
        os.kill(os.getppid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
