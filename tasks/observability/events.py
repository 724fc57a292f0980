"""The catalogue of events, and how they become log lines.

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
from dataclasses import dataclass
from typing import Any

import orjson

from tasks.config.settings import Settings

STDOUT = 1  # its file descriptor
_NUMBERS = re.compile(r"\d+")
_REPETITION_SECONDS = 60.0


@dataclass(frozen=True)
class Event:
    """Something that can happen: a dotted name, a severity, and a sentence with its meaning."""

    name: str
    level: int
    meaning: str


def _catalogue(*events: Event) -> dict[str, Event]:
    return {event.name: event for event in events}


CATALOGUE = _catalogue(
    Event("process.started", logging.INFO, "The process has read its settings and starts its work"),
    Event("process.stopping", logging.INFO, "The process was asked to stop and finishes its work in flight"),
    Event("process.stopped", logging.INFO, "The process has finished"),
    Event("process.failed", logging.ERROR, "The process ends because of an error"),
    Event("program.exited", logging.WARNING, "A program of the pod exited unexpectedly; supervisord restarts it"),
    Event("program.output", logging.INFO, "A line of output of another program in the pod, such as Redis"),
    Event("pod.failed", logging.ERROR, "A program of the pod keeps failing, so the pod ends"),
    Event("init.waiting", logging.INFO, "init waits for a service that does not respond yet"),
    Event("init.done", logging.INFO, "init changed something, or found it up to date"),
    Event("init.warning", logging.WARNING, "init found a difference that it does not change"),
    Event("message.accepted", logging.INFO, "Kafka acknowledged a message received over HTTP"),
    Event("messages.accepted", logging.INFO, "Kafka acknowledged messages of a batch received over HTTP"),
    Event("message.unacknowledged", logging.ERROR, "Kafka did not acknowledge a message in time"),
    Event("request.rejected", logging.INFO, "The response to a request was a problem"),
    Event("request.failed", logging.ERROR, "A request failed because of an unexpected error"),
    Event("api.open", logging.WARNING, "No API keys are set: every client that can reach the API may use all of it"),
    Event(
        "schema.mismatch",
        logging.ERROR,
        "The tables do not match this version of the program, or a unique key is missing; the process continues",
    ),
    Event("schema.match", logging.INFO, "The tables match this version of the program again"),
    Event("service.unavailable", logging.WARNING, "A service does not respond; the process waits and retries"),
    Event("service.available", logging.INFO, "A service that was unavailable responds again"),
    Event("partitions.assigned", logging.INFO, "The consumer group assigned partitions to this bridge"),
    Event("partitions.revoked", logging.INFO, "The consumer group revoked partitions from this bridge"),
    Event(
        "partitions.paused", logging.INFO, "Backpressure lasted; partitions are paused in Kafka while polling continues"
    ),
    Event(
        "records.lost",
        logging.ERROR,
        "Kafka deleted records before the group read them: retention, or somebody, was faster",
    ),
    Event(
        "records.missing",
        logging.ERROR,
        "PostgreSQL lacks records that it had stored: it was restored, or a standby lagged; they are read again",
    ),
    Event(
        "partition.rewound",
        logging.WARNING,
        "Kafka returned records from before the expected offset: a log was truncated; known records change nothing",
    ),
    Event("topic.missing", logging.ERROR, "A configured topic does not exist; the others are read"),
    Event("topic.available", logging.INFO, "A topic that was missing exists again"),
    Event("topic.recreated", logging.WARNING, "A topic was deleted and created again; it is read from its start"),
    Event("batch.handed_over", logging.INFO, "The bridge handed a batch to Celery"),
    Event(
        "batch.forged",
        logging.ERROR,
        "A batch in Redis is not of a bridge with our SEAL_KEY and DATABASE_URL; it is ignored",
    ),
    Event(
        "result.forged",
        logging.ERROR,
        "A result in Redis is not of a worker with our SEAL_KEY and DATABASE_URL; it is ignored",
    ),
    Event("batch.redelivered", logging.WARNING, "The bridge handed a batch to Celery again"),
    Event("batch.split", logging.WARNING, "The bridge split a batch that killed its worker into two halves"),
    Event("batch.stored", logging.INFO, "A worker committed a batch to PostgreSQL"),
    Event("batch.failed", logging.WARNING, "A worker could not store a batch; it will be redelivered"),
    Event("batch.stale", logging.INFO, "A worker received an attempt that has been replaced by a newer one"),
    Event("message.stored", logging.DEBUG, "A message of a batch is in PostgreSQL"),
    Event("message.duplicate", logging.INFO, "A sender sent a message again; it stays stored once"),
    Event("record.dead_lettered", logging.WARNING, "A record was stored in dead_letter"),
    Event("bridge.backpressure", logging.WARNING, "The bridge has stopped reading, for the given reason"),
    Event("bridge.resumed", logging.INFO, "The bridge reads again"),
    Event("bridge.stuck", logging.ERROR, "The bridge makes no progress and exits, to be restarted"),
    Event(
        "worker.stuck", logging.ERROR, "Tasks are queued but the workers take none; their parent exits, to be restarted"
    ),
    Event(
        "partition.quarantined",
        logging.ERROR,
        "Too many of a partition's records became dead letters; the group has stopped reading it",
    ),
    Event("partition.released", logging.WARNING, "The group reads a quarantined partition again"),
    Event("dead_letter.redriven", logging.DEBUG, "Kafka acknowledged a redriven dead letter"),
    Event("dead_letter.redrive_failed", logging.WARNING, "A dead letter could not be redriven; it is still waiting"),
    Event("retention.done", logging.INFO, "Old messages and handled dead letters were deleted, or only counted"),
    Event("offset.committed", logging.DEBUG, "The bridge committed an offset"),
    Event("offset.commit_failed", logging.WARNING, "Kafka rejected an offset commit; the records may be read again"),
    Event(
        "metrics.not_shared", logging.WARNING, "The metrics of this process are not exported: its file is not writable"
    ),
    Event("log", logging.INFO, "A log line of a library"),
)


def emit(name: str, traceback_of: BaseException | None = None, /, **fields: Any) -> None:
    """Write a log line for the event `name` of the catalogue. Raises KeyError if the catalogue has no such event."""
    event = CATALOGUE[name]
    if event.level >= _lines.level:
        _lines.say(event.level, name, fields, traceback_of)


def is_logged(name: str) -> bool:
    """Whether the level of `name` is logged, for callers that would compute its fields only for the log."""
    return CATALOGUE[name].level >= _lines.level


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
    root.setLevel(logging.WARNING)
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
            fields = {"logger": record.name, "message": record.getMessage()}
            _lines.say(record.levelno, "log", fields, record.exc_info[1] if record.exc_info else None)
        except Exception:  # as handlers of `logging` do: a mistake in a library's log call must not reach its caller
            self.handleError(record)


def _shown(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or "\n" in text else text


_lines: _Lines = _TextLines({"process": "python", "env": ""}, logging.WARNING)
