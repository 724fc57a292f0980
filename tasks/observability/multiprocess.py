"""Slots in the directory through which the processes of a pod share their metrics, one for each running process.

prometheus-client names its files after process ids, so each worker that is replaced leaves files behind. Here
they are named after slots. A lock holds a slot and is released when its process ends, however it ends; the next process
takes the slot and continues its counts. So no count is lost, and there are no more files than concurrent processes.
"""

import fcntl
import itertools
import os
from pathlib import Path

_BYTES = 1 << 18  # room for about a thousand values
_FILES = ("counter", "histogram", "gauge_livesum")
_held: dict[Path, int] = {}  # keeps this process's lock files open


def take(directory: Path) -> int:
    """The number of a free slot, which this process holds until it ends. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        lock = _lock(directory, number)
        file = None if lock in _held else _locked(lock)
        if file is not None:
            _held[lock] = file
            _forget_gauges(directory, number)
            for name in _FILES:
                _reserve(directory / f"{name}_{number}.db")
            return number
    raise AssertionError  # count() never ends


def forget_dead(directory: Path) -> None:
    """Remove the gauges of processes that have ended; their counters stay."""
    for lock in directory.glob("*.slot"):
        if lock in _held:
            continue  # our own slot, which must not be opened: closing it would release our lock
        file = _locked(lock)
        if file is not None:
            _forget_gauges(directory, int(lock.stem))
            os.close(file)


def _lock(directory: Path, number: int) -> Path:
    return directory / f"{number}.slot"


def _locked(lock: Path) -> int | None:
    """A descriptor that holds the lock; None if another process holds it. A fork does not inherit a POSIX lock."""
    file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _forget_gauges(directory: Path, number: int) -> None:
    for file in directory.glob(f"gauge_live*_{number}.db"):
        file.unlink(missing_ok=True)


def _reserve(path: Path) -> None:
    """Reserve the space at once: on a full disk, a write to a mapped file without space would kill the process.

    The file appears with its space, so that a scrape at that moment does not find an empty file.
    """
    growing = path if path.exists() else path.with_suffix(".new")
    with growing.open("ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, _BYTES)
        else:
            file.truncate(max(_BYTES, file.tell()))
    growing.rename(path)
