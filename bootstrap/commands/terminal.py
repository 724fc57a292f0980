"""Prints what strangers wrote, so that a terminal only shows it."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def while_read() -> Iterator[None]:
    """Stop in silence when the reader of the output, such as `head`, has ended: Python would complain again at exit."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; the last one may be long."""
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    for row in rows:
        print(*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1], sep="  ")


def plain(text: str) -> str:
    """Text without control characters, which a terminal would execute and which any sender can write."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
