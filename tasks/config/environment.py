"""The environment that settings are read from, and that child processes get."""

import os
from collections.abc import Mapping


def child_environment(flags: Mapping[str, str], environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child process: ours, and our flags as variables.

    Children get settings this way and not as arguments, because `ps` shows arguments.
    """
    own = os.environ if environment is None else environment
    return {**own, **{name.upper(): value for name, value in flags.items()}}
