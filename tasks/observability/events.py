"""How events become log lines.

Code emits events of the catalogue and writes no other log lines, so that a name means the same in every
process. The id of a message or batch in the fields connects the lines of all processes.
"""

import json
import logging
import os
import re
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import orjson

from tasks.config.settings import Settings
from tasks.observability.event_catalogue import CATALOGUE

STDOUT = 1  # its file descriptor
TASKS = "tasks"  # the process that runs code of the users, which logs through `logging`
_NUMBERS = re.compile(r"\d+")
_REPETITION_SECONDS = 60.0


def emit(name: str, traceback_of: BaseException | None = None, /, **fields: Any) -> None:
    """Write a log line for the event `name` of the catalogue. Raises KeyError if the catalogue has no such event."""
    event = CATALOGUE[name]
    if event.level >= _lines.level:
        _lines.say(event.level, name, fields, traceback_of)


def is_logged(name: str) -> bool:
    """Whether the level of `name` is logged, for callers that would compute its fields only for the log."""
    return CATALOGUE[name].level >= _lines.level


def say_of_all_lines(fields: Mapping[str, Any]) -> None:
    """Add fields to each line that this thread logs through `logging` from now on: of a run, what users' code logs."""
    _context.set(fields)


def library_logger(name: str) -> logging.Logger:
    """A logger for a library that has to be given one; its records become events, repeated ones once a minute."""
    logger = logging.getLogger(name)
    if not logger.filters:
        logger.addFilter(_Repetitions())
    return logger


def configure(settings: Settings, process: str, to: int = STDOUT) -> None:
    """Write all log lines of this process, those of libraries too, to a file descriptor in the configured format."""
    global _lines
    kind = _JsonLines if settings.log_format == "json" else _TextLines
    level = logging.getLevelName(settings.log_level.upper())
    _lines = kind({"process": process, "env": settings.app_env}, level, to)
    root = logging.getLogger()
    root.handlers[:] = [_FromLibraries()]
    root.setLevel(level if process == TASKS else logging.WARNING)
    for library in ("celery", "kombu", "peewee"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)  # it would log each attempt to export


class _Lines:
    """Writes events as lines, without the records of `logging`: a busy API spent a tenth of its time on those."""

    def __init__(self, constant: dict[str, str], level: int, to: int = STDOUT) -> None:
        self.level = level
        self._to = to
        self._constant = constant
        self._second = (0, "")  # the last whole second and its text

    def say(self, level: int, event: str, fields: Mapping[str, Any], error: BaseException | None = None) -> None:
        """Write one line. A line that cannot be written is dropped."""
        line = {
            "time": self._now(),
            "level": logging.getLevelName(level).lower(),
            **self._constant,
            "pid": os.getpid(),
            "event": event,
            **fields,
        }
        if error is not None:
            line["traceback"] = "".join(traceback.format_exception(error)).rstrip()
        with suppress(OSError):
            # One call without a buffer keeps the lines of threads, and of processes with a common log, whole.
            os.write(self._to, self._text(line))

    def _text(self, line: dict[str, Any]) -> bytes:
        raise NotImplementedError

    def _now(self) -> str:
        now = time.time()  # noqa: TID251 - for a person
        second, text = self._second
        if second != int(now):
            second, text = int(now), time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
            self._second = second, text
        return f"{text}.{int((now - second) * 1000):03}Z"


class _JsonLines(_Lines):
    def _text(self, line: dict[str, Any]) -> bytes:
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE)
        except TypeError:  # not valid Unicode: half a surrogate pair
            return json.dumps(line, default=str).encode() + b"\n"


class _TextLines(_Lines):
    def _text(self, line: dict[str, Any]) -> bytes:
        head = f"{line.pop('time')} {line.pop('level'):<7} {line.pop('process')}[{line.pop('pid')}] {line.pop('event')}"
        trace = line.pop("traceback", None)
        line.pop("env")
        tail = " ".join(f"{name}={_shown(value)}" for name, value in line.items())
        return (f"{head} {tail}".rstrip() + (f"\n{trace}\n" if trace else "\n")).encode(errors="backslashreplace")


class _Repetitions(logging.Filter):
    """Drops what was logged in the last minute, perhaps with other numbers, such as each attempt to connect."""

    def __init__(self) -> None:
        super().__init__()
        self._until: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text, now = _NUMBERS.sub("", record.getMessage()), time.monotonic()
        if now < self._until.get(text, 0.0):
            return False
        self._until = {known: until for known, until in self._until.items() if until > now}
        self._until[text] = now + _REPETITION_SECONDS
        return True


class _FromLibraries(logging.Handler):
    """Log records of libraries become events."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = {"logger": record.name, "message": record.getMessage(), **_context.get()}
            _lines.say(record.levelno, "log", fields, record.exc_info[1] if record.exc_info else None)
        except Exception:  # as handlers of `logging` do: a mistake in a library's log call must not reach its caller
            self.handleError(record)


def _shown(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or "\n" in text else text


_context: ContextVar[Mapping[str, Any]] = ContextVar("fields of all lines", default=MappingProxyType({}))
_lines: _Lines = _TextLines({"process": "python", "env": ""}, logging.WARNING)
