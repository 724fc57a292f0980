"""Marks a directory as used by a running local stack, and tells other commands where its servers are."""

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.errors import LocalStackError


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold `directory` while a stack runs on it. Raises LocalStackError if another one does.

    Two stacks on the same data would destroy it. The kernel releases the lock when the process ends, however it ends.
    """
    with contextlib.ExitStack() as opened:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context((directory / "lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalStackError(f"a local stack is already running on {directory}; stop it first") from None
        except OSError as error:
            raise LocalStackError(f"cannot write to {directory}: {error.strerror}") from None
        yield  # outside of `try`: an OSError of the stack is not one of the lock


def announce(directory: Path, variables: Mapping[str, str]) -> None:
    """Write where the servers of the running stack are, readable by this user only: a URL may contain a password."""
    file = directory / "variables.json"
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps(dict(variables)))


def variables(directory: Path) -> dict[str, str]:
    """DATABASE_URL, KAFKA_BROKERS and REDIS_URL of the stack that runs on `directory`; empty if none does."""
    try:
        with (directory / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads((directory / "variables.json").read_text()))
    except OSError:
        pass
    return {}
