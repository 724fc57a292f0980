"""Imports the modules of the users that declare tasks, as the setting TASKS names them."""

import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks import declaration
from tasks.declaration import Task
from tasks.errors import ConfigurationError


def load(modules: Sequence[str]) -> Sequence[Task]:
    """The tasks in these modules, declared there or imported, and those of their submodules; by name.

    The current directory is searched, too, as by Celery. Raises ConfigurationError, also if there are none.
    """
    here = str(Path.cwd())
    if modules and here not in sys.path:
        sys.path.insert(0, here)
    found: dict[str, Task] = {}
    for module in modules:
        try:
            imported = importlib.import_module(module)
        except ConfigurationError as error:
            raise ConfigurationError(f"--tasks / TASKS, module {module}: {error}") from error
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = "" if "importlib" in place.filename else f" ({place.filename}, line {place.lineno})"
            reason = f"{type(error).__name__}: {error}"
            raise ConfigurationError(f"--tasks / TASKS: module {module} cannot be imported: {reason}{where}") from error
        there = [one for one in vars(imported).values() if isinstance(one, Task)]
        there += [one for one in declaration.declared() if f"{one.function.__module__}.".startswith(f"{module}.")]
        found |= {one.name: one for one in there}
    if modules and not found:
        raise ConfigurationError(f"--tasks / TASKS: {', '.join(modules)}: there is no function with @task")
    for one in found.values():
        for alias in one.options.aliases:
            if alias in found:
                raise ConfigurationError(f"task {one.name}: its alias {alias} is the name of another task")
    return [found[name] for name in sorted(found)]


def found_by_children(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of processes that start in another directory, and find the modules in the current one."""
    paths = [str(Path.cwd()), environment.get("PYTHONPATH", "")]
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
