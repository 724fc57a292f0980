"""Where settings are read from, and what child processes get of it."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import Field
from typing import Any

from tasks.config import tls
from tasks.config.setting import flag
from tasks.config.validation import conflicts
from tasks.errors import ConfigurationError


def child_environment(flags: Mapping[str, str], environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child process: ours, and our flags as variables.

    Children get settings this way and not as arguments, because `ps` shows arguments.
    """
    own = os.environ if environment is None else environment
    return {**own, **{name.upper(): value for name, value in flags.items()}}


def parsed(settings: Iterable[Field[Any]], values: Mapping[str, str]) -> dict[str, Any]:
    """The values of declared settings, by name, from the variables in `values`, then defaults.

    Raises ConfigurationError naming every bad value; a secret's value is never repeated.
    """
    result: dict[str, Any] = {}
    faults: list[str] = []
    for declared in settings:
        text = values.get(declared.name.upper(), declared.metadata["default"])
        try:
            result[declared.name] = declared.metadata["parse"](text)
        except ValueError as error:
            shown = "" if declared.metadata["secret"] else f" ({text!r})"
            faults.append(f"{flag(declared.name)} / {declared.name.upper()}{shown}: {_because(error)}")
    faults = faults or list(conflicts(result))
    if faults:
        raise ConfigurationError("; ".join(faults))
    if result["redis_url"] is not None:
        result["redis_url"] = tls.redis_url(result["redis_url"], result["redis_ssl_ca_file"])
    return result


def _because(error: ValueError) -> str:
    text = str(error)
    return "must be a whole number" if text.startswith("invalid literal") else text
