"""The version of the program."""

from pathlib import Path


def version() -> str:
    """The version, as in `tasks/VERSION`: the only place where it is written, in a checkout, a wheel and the image."""
    return (Path(__file__).parents[1] / "VERSION").read_text().strip()
