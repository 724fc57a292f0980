"""The actions of `dead-letters` and `runs`, with their arguments. Imports no client library, as --help needs none."""

import argparse
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

STATES = ("waiting", "redriven", "discarded")
RUN_STATES = ("waiting", "retrying", "failed", "discarded", "expired", "done")


@dataclass(frozen=True)
class Action:
    """An action: its summary, an example, and its arguments."""

    summary: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]


def _list(parser: argparse.ArgumentParser) -> None:
    _selection(parser)
    parser.add_argument("--state", choices=(*STATES, "any"), default="waiting", help="their state; default: waiting")
    parser.add_argument(
        "--limit", type=_count, default=50, metavar="N", help="maximum number, newest first; default: 50"
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="one JSON object a line, without the bytes")


def _show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("letter_id", type=_id, metavar="ID", help="id of the dead letter")
    parser.add_argument("--raw", action="store_true", help="print only the bytes of the value")


def _redrive(parser: argparse.ArgumentParser) -> None:
    _selection(parser)
    _caution(parser)


def _discard(parser: argparse.ArgumentParser) -> None:
    _selection(parser)
    parser.add_argument("--note", required=True, type=_text, metavar="TEXT", help="reason why they are not needed")
    _caution(parser)


def _release(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topic", required=True, metavar="TOPIC", help="topic with quarantined partitions")
    parser.add_argument("--partition", type=int, metavar="N", help="one partition; default: all of the topic")


def _selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--id", action="extend", type=_ids, default=[], dest="ids", metavar="ID", help="comma-separated, or repeated"
    )
    parser.add_argument("--topic", metavar="TOPIC", help="only those of this topic")
    parser.add_argument("--reason", metavar="REASON", help="only those with this reason, for example id_conflict")
    parser.add_argument(
        "--from",
        type=_time,
        dest="since",
        metavar="TIME",
        help="dead-lettered at this time or later, for example 2026-01-31T12:00:00Z",
    )
    parser.add_argument("--to", type=_time, dest="until", metavar="TIME", help="dead-lettered before this time")


def _caution(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--all",
        action="store_true",
        dest="everything",
        help="all waiting dead letters; required if no other filter is given",
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing; print what would happen")


def _list_runs(parser: argparse.ArgumentParser) -> None:
    _run_selection(parser)
    parser.add_argument("--state", choices=(*RUN_STATES, "any"), default="failed", help="their state; default: failed")
    parser.add_argument(
        "--limit", type=_count, default=50, metavar="N", help="maximum number, newest first; default: 50"
    )
    _as_json(parser)


def _as_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", dest="as_json", help="one JSON object a line")


def _show_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_id", type=_count, metavar="ID", help="id of the run")


def _change_runs(parser: argparse.ArgumentParser) -> None:
    _run_selection(parser)
    parser.add_argument("--all", action="store_true", dest="everything", help="all failed runs")
    parser.add_argument("--dry-run", action="store_true", help="change nothing; print how many it would be")


def _discard_runs(parser: argparse.ArgumentParser) -> None:
    _change_runs(parser)
    parser.add_argument("--note", required=True, type=_text, metavar="TEXT", help="reason why they are not needed")


def _replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", required=True, metavar="NAME", help="name of the task")
    parser.add_argument("--from", required=True, type=_time, dest="since", metavar="TIME", help="stored then or later")
    parser.add_argument("--to", required=True, type=_time, dest="until", metavar="TIME", help="stored before this time")
    parser.add_argument("--again", action="store_true", help="also for messages that it has run for, or has still to")
    parser.add_argument("--dry-run", action="store_true", help="change nothing; print for how many it would be")


def _run_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--id", action="append", type=_count, default=[], dest="ids", metavar="ID", help="repeatable")
    parser.add_argument("--task", metavar="NAME", help="only those of this task")
    parser.add_argument(
        "--from", type=_time, dest="since", metavar="TIME", help="changed then or later, as 2026-01-31T12:00:00Z"
    )
    parser.add_argument("--to", type=_time, dest="until", metavar="TIME", help="changed before this time")


_OF_DEAD_LETTERS = {
    "list": Action(
        "list dead letters, newest first",
        "dead-letters list --topic orders --from 2026-01-31T00:00:00Z --json",
        _list,
    ),
    "show": Action(
        "show one dead letter with its original bytes",
        "dead-letters show 6f9b1d9e-6a57-5d0e-9f0b-0d5c1c7e6a02",
        _show,
    ),
    "redrive": Action(
        "produce waiting dead letters to their topics again, after the cause is fixed; they are marked as redriven",
        "dead-letters redrive --topic orders --reason killed_its_worker --dry-run",
        _redrive,
    ),
    "discard": Action(
        "mark waiting dead letters as discarded; they are kept until retention deletes them",
        "dead-letters discard --reason not_json --note 'test traffic of 31 January'",
        _discard,
    ),
    "release": Action(
        "release quarantined partitions: the bridges read them again",
        "dead-letters release --topic orders --partition 3",
        _release,
    ),
}


_OF_RUNS = {
    "list": Action("list runs of your tasks that failed, newest first", "runs list --task shop.tasks.book", _list_runs),
    "show": Action("show one run with its traceback", "runs show 17", _show_run),
    "retry": Action(
        "run failed runs once more, after the cause is fixed; one that fails again is failed again",
        "runs retry --task shop.tasks.book --from 2026-01-31T00:00:00Z",
        _change_runs,
    ),
    "replay": Action(
        "let a task run for messages that were stored before it existed",
        "runs replay --task shop.tasks.book --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z --dry-run",
        _replay,
    ),
    "discard": Action(
        "mark failed runs as discarded", "runs discard --id 17 --note 'the order was cancelled'", _discard_runs
    ),
}


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the task")


def _pause(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument("--note", required=True, type=_text, metavar="TEXT", help="reason why it is paused")


_OF_TASKS = {
    "list": Action("list your tasks with what waits for them", "tasks list --json", _as_json),
    "pause": Action(
        "let a task run nothing until it is resumed; what it has to run for waits",
        "tasks pause shop.tasks.book --note 'the bank is closed'",
        _pause,
    ),
    "resume": Action("let a paused task run again", "tasks resume shop.tasks.book", _name),
    "retire": Action(
        "end a task: messages that are stored from now on do not run it", "tasks retire shop.tasks.book", _name
    ),
}
ACTIONS = {"tasks": _OF_TASKS, "dead-letters": _OF_DEAD_LETTERS, "runs": _OF_RUNS}


def _id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a UUID") from None


def _ids(text: str) -> list[uuid.UUID]:
    return [_id(part) for part in text.split(",")]


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} needs a time zone, as in 2026-01-31T12:00:00Z")
    return moment


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text
