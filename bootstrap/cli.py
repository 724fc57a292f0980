"""The command line: each command with flags made from the settings, and exit codes that mean something."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from bootstrap.actions import ACTIONS
from tasks import settings, telemetry
from tasks.errors import EXIT_FAILED, EXIT_OK, BackendError
from tasks.settings import COMMANDS, Settings
from tasks.version import version

_SUMMARY = {
    "init": "create topics and tables, or bring them up to date; safe to run again and by several at once",
    "serve": "answer HTTP: accept messages into Kafka, read them from PostgreSQL",
    "consume": "carry messages from Kafka to PostgreSQL: the bridge, Celery workers, and a Redis if none is given",
    "local": "run everything on this machine: Kafka, PostgreSQL, Valkey, then init, serve and consume",
    "dead-letters": "look at the records that could not be stored; produce them again, or discard them",
    "retention": "delete old messages and handled dead letters; run it once a day",
}
_EXAMPLES = {
    "init": "python -m bootstrap init --kafka-brokers kafka:9092 --kafka-topics orders,payments --kafka-partitions 12",
    "serve": "python -m bootstrap serve --port 8080 --cors-origins https://shop.example",
    "consume": "python -m bootstrap consume --kafka-group-id backend --workers 4",
    "local": "PORT=8081 python -m bootstrap local",
    "dead-letters": "python -m bootstrap dead-letters list --reason id_conflict",
    "retention": "python -m bootstrap retention --retention-days 90 --dead-letter-retention-days 30 --dry-run",
}
_LASTING = ("serve", "consume")
_EXIT_CODES = """exit codes:
  0  done
  1  an unforeseen error; the log has its traceback
  2  a setting or argument is unknown or wrong
  3  a service could not be reached in time
  4  a service refused our credentials or rights, or we do not trust its certificate
  5  topics or tables are missing: run init
  6  the local stack cannot run here
"""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # An abbreviation that is one today may stand for two flags tomorrow.
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> None:  # type: ignore[override]
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = _Parser(
        prog="bootstrap",
        description="A message backend: HTTP to Kafka to Celery to PostgreSQL, every message exactly once.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=version())
    commands = top.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    for command in COMMANDS:
        _add_command(commands, command)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code. Errors are one sentence, on stderr until the log is set up."""
    given = vars(parser().parse_args(arguments))
    command = given.pop("command")
    taken = {row.name for row in settings.table()}
    options: dict[str, Any] = {name: value for name, value in given.items() if name not in taken}
    flags = {name: value for name, value in given.items() if name in taken and value is not None}
    if command in _LASTING and any(row.secret for row in settings.table() if row.name in flags):
        _begin_anew([command, *(["--only", options["only"]] if options.get("only") else [])], flags)
    try:
        loaded = settings.load(flags)
        _run(command, loaded, flags, options)
    except BackendError as error:
        print(f"bootstrap {command}: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # a bug: it ends the process, and its traceback is one line of the log as all else
        telemetry.emit("process.failed", error, reason=f"{type(error).__name__}: {error}")
        return EXIT_FAILED
    return EXIT_OK


def _begin_anew(arguments: list[str], flags: dict[str, str]) -> NoReturn:
    """Become the same command with its flags as variables: a flag shows in `ps` for as long as its process runs."""
    command = [sys.executable, "-m", "bootstrap", *arguments]
    os.execve(sys.executable, command, settings.child_environment(flags))


def _run(command: str, loaded: Settings, flags: dict[str, str], options: dict[str, Any]) -> None:
    """Import a command when it is wanted: the image has no local stack, and init needs no web server."""
    telemetry.configure(loaded, options.get("only") or command)
    module = importlib.import_module(f"bootstrap.{command.replace('-', '_')}")
    module.run(loaded, flags, **options)


def _add_command(commands: "argparse._SubParsersAction[_Parser]", command: str) -> None:
    sub = _new_parser(commands, command, _SUMMARY[command], _EXAMPLES[command])
    if command == "dead-letters":
        actions = sub.add_subparsers(dest="action", required=True, metavar="|".join(ACTIONS))
        for name, action in ACTIONS.items():
            parser = _new_parser(actions, name, action.summary, action.example)
            action.add_arguments(parser)
            _add_settings(parser, command)
        return
    if command == "init":
        sub.add_argument(
            "--check", action="store_true", help="change nothing; report what is missing, exit 5 if any is"
        )
    if command == "consume":
        sub.add_argument("--only", choices=("bridge", "worker"), help="run one part, to scale the two apart")
    if command == "retention":
        sub.add_argument("--dry-run", action="store_true", help="delete nothing; count what would be deleted")
    _add_settings(sub, command)


def _new_parser(commands: "argparse._SubParsersAction[_Parser]", name: str, summary: str, example: str) -> _Parser:
    return commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_settings(sub: argparse.ArgumentParser, command: str) -> None:
    for row in settings.table():
        if command in row.commands:
            default = row.default or "none"
            text = f"{row.meaning} [{row.name.upper()}, default: {default}]"
            sub.add_argument(settings.flag(row.name), dest=row.name, metavar="…", help=text.replace("%", "%%"))
