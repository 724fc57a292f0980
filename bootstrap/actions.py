"""What `dead-letters` can do and the arguments of each action. Imports no server's client: every `--help` reads it."""

import argparse
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

STATES = ("waiting", "redriven", "discarded")


@dataclass(frozen=True)
class Action:
    """One action: what it is for, how it is typed, and the arguments it takes."""

    summary: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]


def _list(parser: argparse.ArgumentParser) -> None:
    _selection(parser)
    parser.add_argument(
        "--state", choices=(*STATES, "any"), default="waiting", help="what was done with them; default: waiting"
    )
    parser.add_argument(
        "--limit", type=_count, default=50, metavar="N", help="at most so many, newest first; default: 50"
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="one JSON object a line, without the bytes")


def _show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("letter_id", type=_id, metavar="ID", help="the dead letter's id")
    parser.add_argument("--raw", action="store_true", help="write the bytes of the value and nothing else")


def _redrive(parser: argparse.ArgumentParser) -> None:
    _selection(parser)
    _caution(parser)


def _discard(parser: argparse.ArgumentParser) -> None:
    _selection(parser)
    parser.add_argument("--note", required=True, type=_text, metavar="TEXT", help="why nobody needs them")
    _caution(parser)


def _resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topic", required=True, metavar="TOPIC", help="the topic that was stopped")
    parser.add_argument("--partition", type=int, metavar="N", help="one partition; without it all of the topic")


def _selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--id", action="extend", type=_ids, default=[], dest="ids", metavar="ID", help="comma separated, or repeated"
    )
    parser.add_argument("--topic", metavar="TOPIC", help="those of one topic")
    parser.add_argument("--reason", metavar="REASON", help="those with one reason, as id_conflict")
    parser.add_argument(
        "--from",
        type=_time,
        dest="since",
        metavar="TIME",
        help="those that died then or later, as 2026-01-31T12:00:00Z",
    )
    parser.add_argument("--to", type=_time, dest="until", metavar="TIME", help="those that died before")


def _caution(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--all", action="store_true", dest="everything", help="all that wait: to be said when nothing else is"
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing; say what would happen")


ACTIONS = {
    "list": Action(
        "list dead letters, newest first",
        "python -m bootstrap dead-letters list --topic orders --from 2026-01-31T00:00:00Z --json",
        _list,
    ),
    "show": Action(
        "show one dead letter with its original bytes",
        "python -m bootstrap dead-letters show 6f9b1d9e-6a57-5d0e-9f0b-0d5c1c7e6a02",
        _show,
    ),
    "redrive": Action(
        "produce waiting dead letters again to their topics, once their cause is cured; they are kept, marked redriven",
        "python -m bootstrap dead-letters redrive --topic orders --reason killed_its_worker --dry-run",
        _redrive,
    ),
    "discard": Action(
        "mark waiting dead letters as needed by nobody; they are kept until retention deletes them",
        "python -m bootstrap dead-letters discard --reason not_json --note 'test traffic of 31 January'",
        _discard,
    ),
    "resume": Action(
        "let bridges read partitions again that were stopped because too much of them went to dead_letter",
        "python -m bootstrap dead-letters resume --topic orders --partition 3",
        _resume,
    ),
}


def _id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no UUID") from None


def _ids(text: str) -> list[uuid.UUID]:
    return [_id(part) for part in text.split(",")]


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time as 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} needs a time zone, as in 2026-01-31T12:00:00Z")
    return moment


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text
