"""How a setting is declared, and which commands accept it as a flag."""

from collections.abc import Callable
from dataclasses import field
from typing import Any

COMMANDS = ("init", "serve", "consume", "local", "dead-letters", "tasks", "runs", "lost-records", "retention")
WITH_KAFKA = ("init", "serve", "consume", "local", "dead-letters")
PROCESSING = ("init", "serve", "consume", "local")


def setting(default: str, parse: Callable[[str], Any], meaning: str, *commands: str, secret: bool = False) -> Any:
    """Declare a setting. `commands` are those that accept it as a flag; without any, it has only a variable."""
    metadata = {"default": default, "parse": parse, "meaning": meaning, "commands": commands, "secret": secret}
    return field(metadata=metadata, repr=not secret)


def flag(name: str) -> str:
    """The command-line flag of a setting: kafka_topics -> --kafka-topics."""
    return "--" + name.replace("_", "-")
