"""What the system says of itself: the catalogue of events, and how a log line is written.

Code emits events from the catalogue and writes no log line of its own, so that names stay one thing
across processes. An id (message or batch) in the fields lets one life be followed through all logs.
"""

import json
import logging
import os
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from tasks.settings import Settings

STDOUT = 1  # its file descriptor


@dataclass(frozen=True)
class Event:
    """A fact that can happen: its dotted name, its severity, and one sentence on what it means."""

    name: str
    level: int
    meaning: str


def _catalogue(*events: Event) -> dict[str, Event]:
    return {event.name: event for event in events}


CATALOGUE = _catalogue(
    Event("process.started", logging.INFO, "A process has read its settings and begins its work"),
    Event("process.stopping", logging.INFO, "A process was asked to stop and finishes what it holds"),
    Event("process.stopped", logging.INFO, "A process has finished"),
    Event("process.failed", logging.ERROR, "A process ends because of an error"),
    Event("program.ended", logging.WARNING, "A program of the pod ended by itself, and is started anew"),
    Event("program.said", logging.INFO, "A line of a program of the pod that is not ours, as Redis"),
    Event("pod.given_up", logging.ERROR, "A program of the pod ends again and again, so the pod ends"),
    Event("init.waiting", logging.INFO, "init waits for a service that does not answer yet"),
    Event("init.done", logging.INFO, "init changed something, or found it as it should be"),
    Event("init.warning", logging.WARNING, "init found a difference it does not change"),
    Event("message.accepted", logging.INFO, "Kafka acknowledged a message that came over HTTP"),
    Event("batch.accepted", logging.INFO, "Kafka acknowledged messages of a batch that came over HTTP"),
    Event("message.refused", logging.INFO, "A request was answered with a problem"),
    Event("message.unacknowledged", logging.ERROR, "Kafka did not acknowledge a message in time"),
    Event("api.open", logging.WARNING, "There are no API keys: everybody who reaches the API may use all of it"),
    Event("api.failed", logging.ERROR, "A request failed because of an error nobody foresaw"),
    Event(
        "tables.mismatch",
        logging.ERROR,
        "The tables do not fit this version of the program, or a unique key is missing; the process continues",
    ),
    Event("tables.match", logging.INFO, "The tables fit this version of the program again"),
    Event("service.unavailable", logging.WARNING, "A service does not answer; the process waits and goes on"),
    Event("service.available", logging.INFO, "A service that was away answers again"),
    Event("partitions.assigned", logging.INFO, "The consumer group gave partitions to this bridge"),
    Event("partitions.revoked", logging.INFO, "The consumer group took partitions from this bridge"),
    Event("partitions.paused", logging.INFO, "Held for so long that Kafka is told: polls go on, records stay there"),
    Event("batch.handed_over", logging.INFO, "The bridge handed a batch to Celery"),
    Event("batch.handed_over_again", logging.WARNING, "The bridge handed a batch over again"),
    Event("batch.split", logging.WARNING, "The bridge halved a batch that ended its worker"),
    Event("batch.stored", logging.INFO, "A worker committed a batch to PostgreSQL"),
    Event("batch.failed", logging.WARNING, "A worker could not store a batch for now"),
    Event("batch.stale", logging.INFO, "A worker got a batch that is no longer wanted"),
    Event("message.stored", logging.DEBUG, "A message of a batch is in PostgreSQL"),
    Event("message.duplicate", logging.INFO, "A message was stored before, from another place, and is stored once"),
    Event("message.dead", logging.WARNING, "A record went to dead_letter"),
    Event("bridge.holding", logging.WARNING, "The bridge reads nothing, for a reason"),
    Event("bridge.reading", logging.INFO, "The bridge reads again"),
    Event("bridge.stuck", logging.ERROR, "The bridge hangs and ends itself, to be started anew"),
    Event(
        "worker.stuck",
        logging.ERROR,
        "Tasks wait and the workers take none; their parent ends itself, to be started anew",
    ),
    Event("partition.stopped", logging.ERROR, "Too much of a partition went to dead_letter; it is read no more"),
    Event("partition.released", logging.WARNING, "A stopped partition is read again"),
    Event("dead_letter.redriven", logging.DEBUG, "Kafka acknowledged a dead letter that was produced again"),
    Event("dead_letter.unsent", logging.WARNING, "A dead letter could not be produced again; it still waits"),
    Event("retention.done", logging.INFO, "Old messages and handled dead letters were deleted, or only counted"),
    Event("offset.committed", logging.DEBUG, "The bridge committed an offset"),
    Event("offset.refused", logging.WARNING, "Kafka refused an offset commit; the records may be read again"),
    Event("metrics.unshared", logging.WARNING, "What this process counts is not shown: its file cannot be written"),
    Event("log", logging.INFO, "A line of a library"),
)


def emit(name: str, traceback_of: BaseException | None = None, /, **fields: Any) -> None:
    """Say that the event `name` of the catalogue happened. Raises KeyError when it is not in it."""
    event = CATALOGUE[name]
    if event.level >= _lines.level:
        _lines.say(event.level, name, fields, traceback_of)


def wanted(name: str) -> bool:
    """Whether anyone would see `name`, for callers that would have to compute its fields."""
    return CATALOGUE[name].level >= _lines.level


def configure(settings: Settings, process: str, to: int = STDOUT) -> None:
    """Send every log line of this process, ours and the libraries', to a file descriptor in the chosen format."""
    global _lines
    kind = _JsonLines if settings.log_format == "json" else _TextLines
    level = logging.getLevelName(settings.log_level.upper())
    _lines = kind({"process": process, "env": settings.app_env}, level, to)
    root = logging.getLogger()
    root.handlers[:] = [_FromLibraries()]
    root.setLevel(logging.WARNING)
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)  # not a line for each try to send


class _Lines:
    """Writes facts as lines, without the records of logging: a busy API spent a tenth of its time on those."""

    def __init__(self, constant: dict[str, str], level: int, to: int = STDOUT) -> None:
        self.level = level
        self._to = to
        self._constant = constant
        self._second = (0, "")  # the last one, as it is written

    def say(self, level: int, event: str, fields: Mapping[str, Any], error: BaseException | None = None) -> None:
        """Write one line. Whether it can be written is no matter of who says it."""
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
            # One call and no buffer: lines of threads, and of processes with one log, stay whole.
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
        except TypeError:  # text that is no Unicode: half a surrogate pair
            return json.dumps(line, default=str).encode() + b"\n"


class _TextLines(_Lines):
    def _text(self, line: dict[str, Any]) -> bytes:
        head = f"{line.pop('time')} {line.pop('level'):<7} {line.pop('process')}[{line.pop('pid')}] {line.pop('event')}"
        trace = line.pop("traceback", None)
        line.pop("env")
        tail = " ".join(f"{name}={_shown(value)}" for name, value in line.items())
        return (f"{head} {tail}".rstrip() + (f"\n{trace}\n" if trace else "\n")).encode(errors="backslashreplace")


class _FromLibraries(logging.Handler):
    """What libraries log becomes lines as ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = {"logger": record.name, "message": record.getMessage()}
            _lines.say(record.levelno, "log", fields, record.exc_info[1] if record.exc_info else None)
        except Exception:  # as the handlers of logging do: a library's mistake must not be felt by who calls it
            self.handleError(record)


def _shown(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or "\n" in text else text


_lines: _Lines = _TextLines({"process": "python", "env": ""}, logging.WARNING)
