"""The servers of a benchmark: the local stack, in a directory that is deleted afterwards."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from bootstrap.localstack.stack import Stack

ROOT = Path(__file__).parent.parent
JARS = ROOT / ".local" / "kafka-4.4.0"


@contextmanager
def started() -> Iterator[Stack]:
    """The running servers."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, Stack(Path(directory), {}, JARS) as stack:
        yield stack


def logged_at(line: dict[str, Any]) -> float:
    """The time of a log line, in seconds since 1970."""
    return datetime.fromisoformat(str(line["time"])).timestamp()
