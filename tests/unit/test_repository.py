"""The repository is one thing: documents and code agree, and files stay small. The manifests: test_manifests.py."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tasks.version
from bootstrap import tables
from tests.world import ROOT

SOURCES = sorted(
    path for folder in ("tasks", "bridge", "api", "bootstrap", "bench") for path in (ROOT / folder).glob("*.py")
)


def test_the_readmes_tables_are_those_of_the_code() -> None:
    text = tables.README.read_text()
    assert tables.filled(text) == text, "run: make docs"


def test_every_path_and_make_target_in_the_documents_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in ("README.md", "DECISIONS.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text()
        for target in re.findall(r"`make ([a-z-]+)", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{name}: make {target}"
        for path in re.findall(r"`((?:tasks|bridge|api|bootstrap|bench|tests|kube)/[\w/.-]*)`", text):
            assert (ROOT / path).exists(), f"{name}: {path}"


def test_the_version_is_one() -> None:
    version = tasks.version.version()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text().replace("[", "").replace("]", "")
    assert f'image.version="{version}"' in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_says_what_it_is_for_and_stays_small(source: Path) -> None:
    tree = ast.parse(source.read_text())
    docstring = ast.get_docstring(tree)
    assert docstring and len(docstring.split()) >= 3
    assert len(source.read_text().splitlines()) <= 320
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, f"{node.name} is too long"


def test_packages_hold_nothing_but_their_sentence() -> None:
    for package in ("tasks", "bridge", "api", "bootstrap"):
        assert len(ast.parse((ROOT / package / "__init__.py").read_text()).body) == 1


def test_nothing_happens_at_import() -> None:
    modules = [
        f"{path.parent.name}.{path.stem}"
        for path in SOURCES
        if path.parent.name != "bench" and not path.stem.startswith("__")
    ]
    code = f"import {', '.join(modules)}"
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code], env={}, cwd=ROOT, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_image_holds_every_package_that_runs_in_it() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for package in ("tasks", "bridge", "api", "bootstrap"):
        assert f"COPY {package} {package}" in dockerfile
