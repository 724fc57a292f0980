"""TCP ports of this machine: which are free, and which have a server."""

import contextlib
import errno
import socket

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int, address: str = "0.0.0.0") -> bool:
    """Whether a server could listen on `port` of `address`. Raises OSError if listening fails for another reason."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True


def accepts(address: str, port: int) -> bool:
    """Whether a server accepts connections on `port` of `address`."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False
