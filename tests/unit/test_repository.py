"""The repository is one thing: documents and code agree, and files stay small. The manifests: test_manifests.py."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bootstrap import docs
from tasks.config import version
from tests.programs import ROOT

SOURCES = sorted(
    path for folder in ("tasks", "bridge", "api", "bootstrap", "bench") for path in (ROOT / folder).rglob("*.py")
)
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", docs.PAGES, ids=lambda page: page.name)
def test_the_documents_tables_are_those_of_the_code(page: Path) -> None:
    text = page.read_text()
    assert docs.filled(text, docs.PAGES[page]) == text, "run: make docs"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_link_between_the_documents_leads_somewhere(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\((?!http)([^)#\s]*)(#([\w-]+))?\)", page.read_text()):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{target}#{anchor}"


def test_every_path_and_make_target_in_the_documents_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for document in DOCUMENTS:
        name, text = document.name, document.read_text()
        for target in re.findall(r"`make ([a-z-]+)", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{name}: make {target}"
        for path in re.findall(r"`((?:tasks|bridge|api|bootstrap|bench|tests|kube|examples)/[\w/.-]*)`", text):
            assert (ROOT / path).exists(), f"{name}: {path}"


def test_the_version_is_one() -> None:
    number = version.version()
    assert f"## {number}" in (ROOT / "CHANGELOG.md").read_text().replace("[", "").replace("]", "")
    assert f'image.version="{number}"' in (ROOT / "Dockerfile").read_text()
    example = (ROOT / "examples" / "shop" / "Dockerfile").read_text()
    assert f"FROM message-backend:{number}" in example
    assert example in (ROOT / "docs" / "your-own-tasks.md").read_text()


@pytest.mark.parametrize("source", [*SOURCES, *EXAMPLES], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is_for_and_stays_small(source: Path) -> None:
    tree = ast.parse(source.read_text())
    docstring = ast.get_docstring(tree)
    assert docstring and len(docstring.split()) >= 3
    assert len(source.read_text().splitlines()) <= 250
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 40, f"{node.name} is too long"


def test_packages_hold_nothing_but_their_sentence() -> None:
    packages = [path for path in SOURCES if path.name == "__init__.py"]
    assert len(packages) > 12
    packages.remove(ROOT / "tasks" / "__init__.py")  # the names for modules of users
    for package in packages:
        assert len(ast.parse(package.read_text()).body) == 1, package


def test_nothing_happens_at_import() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in SOURCES
        if "bench" not in path.parts and not path.stem.startswith("__")
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


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = sorted(path.name for path in folder.glob("0*.md"))
    listed = re.findall(r"^(\d+)\. \[.*\]\((.*)\)$", (folder / "README.md").read_text(), re.MULTILINE)
    assert [page for _, page in listed] == pages
    assert [int(number) for number, _ in listed] == list(range(1, len(pages) + 1))


def test_the_site_has_every_page() -> None:
    configured = (ROOT / "zensical.toml").read_text()
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages if f'"{page}"' not in configured and not page.startswith("decisions/0")} == set()
