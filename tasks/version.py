"""Which version this is."""

from pathlib import Path


def version() -> str:
    """The version of this checkout or image."""
    return (Path(__file__).parent.parent / "VERSION").read_text().strip()
