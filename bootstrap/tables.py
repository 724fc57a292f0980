"""The README's tables of settings, events and metrics, made from code: `make docs` writes, a test compares."""

import logging
from collections.abc import Iterator
from pathlib import Path

from tasks import metrics, settings, telemetry

README = Path(__file__).parent.parent / "README.md"


def filled(text: str) -> str:
    """The README's text with its tables as the code has them."""
    for name, rows in (("settings", _settings()), ("events", _events()), ("metrics", _metrics())):
        head, rest = text.split(f"<!-- {name}: ", 1)
        marker, rest = rest.split("\n", 1)
        tail = rest.split(f"<!-- /{name} -->", 1)[1]
        text = f"{head}<!-- {name}: {marker}\n\n" + "\n".join(rows) + f"\n\n<!-- /{name} -->{tail}"
    return text


def _settings() -> Iterator[str]:
    yield from ("| flag | variable | default | meaning | used by |", "|---|---|---|---|---|")
    for row in settings.table():
        flag = f"`{settings.flag(row.name)}`" if row.commands else ""
        used_by = ", ".join(row.commands) or "all"
        yield f"| {flag} | `{row.name.upper()}` | {row.default or 'none'} | {row.meaning} | {used_by} |"


def _events() -> Iterator[str]:
    yield from ("| event | level | meaning |", "|---|---|---|")
    for event in telemetry.CATALOGUE.values():
        yield f"| `{event.name}` | {logging.getLevelName(event.level).lower()} | {event.meaning} |"


def _metrics() -> Iterator[str]:
    yield from ("| metric | kind | unit | labels | meaning |", "|---|---|---|---|---|")
    for metric in metrics.CATALOGUE.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.meaning} |"


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
