"""The catalogue is what is emitted, and a log line is one line, in both formats."""

import ast
import json
import logging

import pytest

from tasks.config import settings
from tasks.observability import events
from tasks.observability.event_catalogue import CATALOGUE
from tests.programs import ROOT


def emitted() -> set[str]:
    """Every string literal in the first argument of an emit or wanted call, in conditional expressions too."""
    names: set[str] = set()
    for package in ("tasks", "bridge", "api", "bootstrap"):
        for source in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(source.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("events.emit", "events.is_logged"):
                    branches = node.args[0]
                    choices = [branches.body, branches.orelse] if isinstance(branches, ast.IfExp) else [branches]
                    names |= {str(one.value) for one in choices if isinstance(one, ast.Constant)}
    return names


def test_what_is_emitted_is_the_catalogue() -> None:
    assert emitted() == set(CATALOGUE) - {"log"}


def test_a_name_outside_the_catalogue_is_an_error() -> None:
    with pytest.raises(KeyError):
        events.emit("no.such.event")


def lines(capfd: pytest.CaptureFixture[str], log_format: str) -> list[str]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, events._lines)
    try:
        events.configure(settings.load({}, {"LOG_FORMAT": log_format, "APP_ENV": "test"}), "worker")
        events.emit("record.dead_lettered", offset=3, reason="two words\nand a line")
        events.emit("message.stored", id="shown at debug only")
        events.emit("request.rejected", detail="half a pair: \ud800")
        logging.getLogger("library").warning("said %s", "this")
        try:
            raise ValueError("broken")
        except ValueError as error:
            events.emit("request.failed", error, reason="x")
    finally:
        root.handlers[:], root.level, events._lines = before
    return capfd.readouterr().out.splitlines()


def test_json_lines(capfd: pytest.CaptureFixture[str]) -> None:
    dead, refused, library, failed = (json.loads(line) for line in lines(capfd, "json"))
    assert dead["event"] == "record.dead_lettered"
    assert (dead["level"], dead["process"], dead["env"], dead["offset"]) == ("warning", "worker", "test", 3)
    assert dead["reason"] == "two words\nand a line"
    assert refused["detail"] == "half a pair: \ud800"
    assert (library["event"], library["message"]) == ("log", "said this")
    assert "ValueError: broken" in failed["traceback"]


def test_text_lines(capfd: pytest.CaptureFixture[str]) -> None:
    dead, _, library, *_ = lines(capfd, "text")
    assert 'record.dead_lettered offset=3 reason="two words\\nand a line"' in dead
    assert 'message="said this"' in library


def test_nothing_is_written_outside_the_catalogue() -> None:
    for package in ("tasks", "bridge", "api"):
        for source in (ROOT / package).rglob("*.py"):
            if source != ROOT / "tasks" / "observability" / "events.py":
                assert "getLogger" not in source.read_text(), source


def test_what_a_library_repeats_is_written_once(capfd: pytest.CaptureFixture[str]) -> None:
    events.configure(settings.load({}, {"LOG_FORMAT": "json"}), "test")
    logger = events.library_logger("of a test")
    assert events.library_logger("of a test") is logger
    for number in range(10):
        logger.error("%s [client-%d] connection refused after %d ms", "FAIL", number, 10 * number)
        logger.error("timed out")
    written = [json.loads(line)["message"] for line in capfd.readouterr().out.splitlines()]
    assert written == ["FAIL [client-0] connection refused after 0 ms", "timed out"]
