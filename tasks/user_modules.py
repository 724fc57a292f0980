"""Imports the modules of the users that declare tasks, as the setting TASKS names them."""

import importlib
import traceback
from collections.abc import Sequence

from tasks import declaration
from tasks.declaration import Task
from tasks.errors import ConfigurationError


def load(modules: Sequence[str]) -> Sequence[Task]:
    """The tasks that these modules declare. Raises ConfigurationError, also if there are none."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ConfigurationError as error:
            raise ConfigurationError(f"--tasks / TASKS, module {module}: {error}") from error
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = "" if "importlib" in place.filename else f" ({place.filename}, line {place.lineno})"
            reason = f"{type(error).__name__}: {error}"
            raise ConfigurationError(f"--tasks / TASKS: module {module} cannot be imported: {reason}{where}") from error
    found = declaration.declared()
    if modules and not found:
        raise ConfigurationError(f"--tasks / TASKS: {', '.join(modules)}: there is no function with @task")
    return found
