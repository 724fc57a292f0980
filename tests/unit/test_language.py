"""Documents, help texts, docstrings and comments use the terms of docs/style.md, and none of the worst old words."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootstrap import cli
from tasks.config import catalogue
from tasks.observability import metrics
from tasks.observability.event_catalogue import CATALOGUE
from tests.programs import ROOT

_OLD_WORDS = re.compile(
    r"\b(anew|for so long|takes no such|(is|are) gone on with|signs? of life|keeper|bur(y|ied|ies)|telemetry"
    r"|whereabouts|over again|flood(s|ed)?|vitals|halved|who may see|is no (?!longer)\w+|that is none|what became"
    r"|nobody foresaw|is told|are told|what is said|bears?|as it should be)\b",
    re.IGNORECASE,
)
_ROOT_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
_SOURCES = [
    path
    for room in ("tasks", "bridge", "api", "bootstrap", "bench", "kube", "tests", "examples")
    for path in (ROOT / room).rglob("*")
    if path.suffix in (".py", ".yaml", ".sh")
]
_DOCUMENTS = [*_ROOT_PAGES, *sorted((ROOT / "docs").rglob("*.md"))]


def texts() -> Iterator[tuple[str, str]]:
    yield from ((path.name, path.read_text()) for path in _DOCUMENTS)
    yield from ((row.name, row.meaning) for row in catalogue.settings())
    yield from ((event.name, event.meaning) for event in CATALOGUE.values())
    yield from ((metric.name, metric.meaning) for metric in metrics.CATALOGUE.values())
    yield "--help", cli.parser().format_help()


def prose(source: str) -> str:
    """The docstrings and comments of Python code."""
    nodes = ast.walk(ast.parse(source))
    docstrings = [
        ast.get_docstring(node) or "" for node in nodes if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return "\n".join([*docstrings, *(token.string for token in tokens if token.type == tokenize.COMMENT)])


@pytest.mark.parametrize(("name", "text"), list(texts()), ids=lambda value: value if len(value) < 60 else "text")
def test_none_of_the_old_words_is_left(name: str, text: str) -> None:
    assert not [line for line in text.splitlines() if _OLD_WORDS.search(line)]


@pytest.mark.parametrize("source", _SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_none_of_the_old_words_is_left_in_code(source: Path) -> None:
    if source.suffix == ".py":
        text = prose(source.read_text())
    else:
        text = "\n".join(re.findall(r"(?:^|\s)#.*", source.read_text(), re.MULTILINE))
    assert not [line for line in text.splitlines() if _OLD_WORDS.search(line)]
