"""The tables in docs/ that are made from code, and the tree of modules: `make docs` writes, a test compares."""

import ast
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.config import catalogue
from tasks.config.setting import flag
from tasks.observability import metrics
from tasks.observability.event_catalogue import CATALOGUE

_ROOT = Path(__file__).parents[1]
_DOCS = _ROOT / "docs"
PAGES = {
    _DOCS / "architecture.md": ("modules",),
    _DOCS / "configuration.md": ("settings",),
    _DOCS / "observability.md": ("events", "metrics"),
}


def filled(text: str, tables: Sequence[str]) -> str:
    """The text of a page with its tables as the code has them."""
    for name in tables:
        rows = _TABLES[name]()
        head, rest = text.split(f"<!-- {name}: ", 1)
        marker, rest = rest.split("\n", 1)
        tail = rest.split(f"<!-- /{name} -->", 1)[1]
        text = f"{head}<!-- {name}: {marker}\n\n" + "\n".join(rows) + f"\n\n<!-- /{name} -->{tail}"
    return text


def _settings() -> Iterator[str]:
    yield from ("| flag | variable | default | meaning | used by |", "|---|---|---|---|---|")
    for row in catalogue.settings():
        shown = f"`{flag(row.name)}`" if row.commands else ""
        used_by = ", ".join(row.commands) or "all"
        yield f"| {shown} | `{row.name.upper()}` | {row.default or 'none'} | {row.meaning} | {used_by} |"


def _events() -> Iterator[str]:
    yield from ("| event | level | meaning |", "|---|---|---|")
    for event in CATALOGUE.values():
        yield f"| `{event.name}` | {logging.getLevelName(event.level).lower()} | {event.meaning} |"


def _metrics() -> Iterator[str]:
    yield from ("| metric | kind | unit | labels | meaning |", "|---|---|---|---|---|")
    for metric in metrics.CATALOGUE.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.meaning} |"


def _modules() -> Iterator[str]:
    yield "```text"
    for package in ("tasks", "bridge", "api", "bootstrap"):
        yield from _tree(_ROOT / package, "")
    yield "```"


def _tree(folder: Path, indent: str) -> Iterator[str]:
    yield f"{indent + folder.name + '/':32}{_purpose(folder / '__init__.py')}".rstrip()
    modules = sorted(path for path in folder.glob("*.py") if path.stem != "__init__")
    for path in modules:
        yield f"{indent}    {path.name:{28 - len(indent)}}{_purpose(path)}"
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from _tree(inner, indent + "    ")


def _purpose(module: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(module.read_text())) or "").splitlines()[0]


_TABLES = {"settings": _settings, "events": _events, "metrics": _metrics, "modules": _modules}

if __name__ == "__main__":
    for page, tables in PAGES.items():
        page.write_text(filled(page.read_text(), tables))
