"""Every error of ours, split by what must happen next, and the exit code of each.

    BackendError
    |-- ConfigurationError     stop: the operator must change a setting                 exit 2
    |-- Unavailable            wait and try again: a service is away                    exit 3
    |   `-- AccessDenied       it refused us, or we do not trust it: a command stops    exit 4
    |-- NotReady               stop: run `init` first                                   exit 5
    |-- LocalStackError        stop: this machine cannot run the local stack            exit 6
    `-- BadRecord              dead-letter this record; its neighbours go on

An HTTP status belongs to a response, so that table lives with the API (`api/problems.py`).
"""

EXIT_OK = 0
EXIT_FAILED = 1  # a bug: an error nobody foresaw, with its traceback in the log


class BackendError(Exception):
    """Base of every error of ours. Its text is one sentence for the person who reads the log."""

    exit_code = EXIT_FAILED


class ConfigurationError(BackendError):
    """Raised when settings are unknown, malformed or contradict each other; names each of them."""

    exit_code = 2


class Unavailable(BackendError):
    """Raised when a service cannot be reached before a deadline; names the service and its setting."""

    exit_code = 3


class AccessDenied(Unavailable):
    """Raised when a service refuses our credentials or our right to do something, or when we do not trust it.

    It does not pass by itself: what runs to an end stops at once. What runs for ever waits as for an outage,
    because passwords and certificates are changed without it.
    """

    exit_code = 4


class NotReady(BackendError):
    """Raised when topics or tables are missing or too old, so that `init` has to run first."""

    exit_code = 5


class LocalStackError(BackendError):
    """Raised when the local stack cannot run here: port, disk, download, checksum or platform."""

    exit_code = 6


class BadRecord(BackendError):
    """Raised when one record can never be stored as a message; `reason` is the dead letter's reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
