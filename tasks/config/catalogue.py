"""The settings as a table, for `--help` and the documents."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from tasks.config.settings import Settings


@dataclass(frozen=True)
class Description:
    """The description of a setting."""

    name: str
    default: str
    meaning: str
    commands: tuple[str, ...]
    secret: bool


def settings() -> Iterator[Description]:
    """Every setting in order of declaration."""
    for setting in fields(Settings):
        metadata = {name: setting.metadata[name] for name in ("default", "meaning", "commands", "secret")}
        yield Description(setting.name, **metadata)
