"""The errors of the backend, by what must happen next, with their exit codes.

    BackendError
    |-- ConfigurationError     stop: the operator must change a setting                 exit 2
    |-- Unavailable            wait and retry: a service is unavailable                 exit 3
    |   `-- AccessDenied       it rejected us, or is not trusted: a command stops       exit 4
    |-- NotReady               stop: run `init` first                                   exit 5
    |-- LocalStackError        stop: this machine cannot run the local stack            exit 6
    `-- BadRecord              dead-letter this record; its neighbours are stored

An HTTP status belongs to a response, so that table lives with the API (`api/problems.py`).
"""

EXIT_OK = 0
EXIT_FAILED = 1  # a bug: an unexpected error, with its traceback in the log


class BackendError(Exception):
    """Base of the backend's errors. The text is one sentence for the reader of the log."""

    exit_code = EXIT_FAILED


class ConfigurationError(BackendError):
    """Raised when settings are unknown, malformed or contradict each other; names each setting."""

    exit_code = 2


class Unavailable(BackendError):
    """Raised when a service cannot be reached before a deadline; names the service and its setting."""

    exit_code = 3


class AccessDenied(Unavailable):
    """Raised when a service rejects our credentials or rights, or when its certificate is not trusted.

    Retrying does not help, so a command stops at once. A long-running process waits as in an outage, because
    passwords and certificates are changed without it.
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
