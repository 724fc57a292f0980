"""The catalogue is what is emitted, and a log line is one line, in both formats."""

import ast
import json
import logging
from pathlib import Path

import pytest

from tasks import settings, telemetry
from tests.world import ROOT


def emitted() -> set[str]:
    """Every string literal in the first argument of an emit or wanted call, in conditional expressions too."""
    names: set[str] = set()
    for package in ("tasks", "bridge", "api", "bootstrap"):
        for source in (ROOT / package).glob("*.py"):
            for node in ast.walk(ast.parse(source.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("telemetry.emit", "telemetry.wanted"):
                    branches = node.args[0]
                    choices = [branches.body, branches.orelse] if isinstance(branches, ast.IfExp) else [branches]
                    names |= {str(one.value) for one in choices if isinstance(one, ast.Constant)}
    return names


def test_what_is_emitted_is_the_catalogue() -> None:
    assert emitted() == set(telemetry.CATALOGUE) - {"log"}


def test_a_name_outside_the_catalogue_is_an_error() -> None:
    with pytest.raises(KeyError):
        telemetry.emit("no.such.event")


def lines(capfd: pytest.CaptureFixture[str], log_format: str) -> list[str]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, telemetry._lines)
    try:
        telemetry.configure(settings.load({}, {"LOG_FORMAT": log_format, "APP_ENV": "test"}), "worker")
        telemetry.emit("message.dead", offset=3, reason="two words\nand a line")
        telemetry.emit("message.stored", id="shown at debug only")
        telemetry.emit("message.refused", detail="half a pair: \ud800")
        logging.getLogger("library").warning("said %s", "this")
        try:
            raise ValueError("broken")
        except ValueError as error:
            telemetry.emit("api.failed", error, reason="x")
    finally:
        root.handlers[:], root.level, telemetry._lines = before
    return capfd.readouterr().out.splitlines()


def test_json_lines(capfd: pytest.CaptureFixture[str]) -> None:
    dead, refused, library, failed = (json.loads(line) for line in lines(capfd, "json"))
    assert dead["event"] == "message.dead"
    assert (dead["level"], dead["process"], dead["env"], dead["offset"]) == ("warning", "worker", "test", 3)
    assert dead["reason"] == "two words\nand a line"
    assert refused["detail"] == "half a pair: \ud800"
    assert (library["event"], library["message"]) == ("log", "said this")
    assert "ValueError: broken" in failed["traceback"]


def test_text_lines(capfd: pytest.CaptureFixture[str]) -> None:
    dead, _, library, *_ = lines(capfd, "text")
    assert 'message.dead offset=3 reason="two words\\nand a line"' in dead
    assert 'message="said this"' in library


def test_nothing_is_written_outside_the_catalogue() -> None:
    for package in ("tasks", "bridge", "api"):
        for source in (ROOT / package).glob("*.py"):
            if source != Path(ROOT / "tasks" / "telemetry.py"):
                assert "getLogger" not in source.read_text(), source
