"""Places in the directory through which processes of a pod share their metrics: one slot for each living process.

prometheus-client names its files by process id, so that each worker that is replaced leaves files behind. Here
they are named by slot. A slot is held by a lock that ends with its process, however that ends; the next process
takes it over and counts on from there. So no count is lost, and there are as many files as processes at a time.
"""

import fcntl
import itertools
import os
from pathlib import Path

_BYTES = 1 << 18  # room for about a thousand values
_FILES = ("counter", "histogram", "gauge_livesum")
_held: dict[Path, int] = {}  # keeps our own lock files open


def take(directory: Path) -> int:
    """The number of a free slot, which is ours until this process ends. Raises OSError."""
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
    raise AssertionError  # count() has no end


def forget_dead(directory: Path) -> None:
    """Remove the gauges of processes that have ended; what they counted stays."""
    for lock in directory.glob("*.slot"):
        if lock in _held:
            continue  # and must not be opened: closing it would end our lock on it
        file = _locked(lock)
        if file is not None:
            _forget_gauges(directory, int(lock.stem))
            os.close(file)


def _lock(directory: Path, number: int) -> Path:
    return directory / f"{number}.slot"


def _locked(lock: Path) -> int | None:
    """A descriptor that holds the lock, unless another process does. A POSIX lock: a fork does not inherit it."""
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
    """Take the space at once: on a full disk, a write to a mapped file that has none would kill the process.

    The file appears with its space: who reads it at that moment, for a scrape, finds no empty one.
    """
    growing = path if path.exists() else path.with_suffix(".new")
    with growing.open("ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, _BYTES)
        else:
            file.truncate(max(_BYTES, file.tell()))
    growing.rename(path)
