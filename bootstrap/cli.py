"""The command line: each command with flags made from the settings, and exit codes that mean something."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import shtab

from bootstrap.commands.actions import ACTIONS
from bootstrap.localstack import running
from tasks.config import catalogue, settings
from tasks.config.environment import child_environment
from tasks.config.setting import COMMANDS, flag
from tasks.config.settings import Settings
from tasks.config.version import version
from tasks.errors import EXIT_FAILED, EXIT_OK, BackendError
from tasks.observability import events

_SUMMARY = {
    "init": "create or upgrade topics and tables; safe to run again and concurrently",
    "serve": "serve the HTTP API: publish messages to Kafka, read them from PostgreSQL",
    "consume": "store messages from Kafka in PostgreSQL: bridge, Celery workers, and a Redis if REDIS_URL is not set",
    "local": "run Kafka, PostgreSQL, Valkey, and then init, serve and consume on this machine",
    "dead-letters": "list, show, redrive or discard records that could not be stored",
    "tasks": "list your tasks, or pause, resume and retire one",
    "runs": "list, show, retry or discard runs of your tasks that failed",
    "lost-records": "show what Kafka deleted before it was read, or acknowledge that you know",
    "retention": "delete old messages and handled dead letters; run it once a day",
}
_EXAMPLES = {
    "init": "init --kafka-brokers kafka:9092 --kafka-topics orders,payments --kafka-partitions 12",
    "serve": "serve --port 8080 --cors-origins https://shop.example",
    "consume": "consume --kafka-group-id backend --workers 4",
    "local": "local --port 8081",
    "dead-letters": "dead-letters list --reason id_conflict",
    "tasks": "tasks list",
    "runs": "runs list --task shop.tasks.book",
    "lost-records": 'lost-records --topic orders --acknowledge "retention was too short, backfilled"',
    "retention": "retention --retention-days 90 --dead-letter-retention-days 30 --dry-run",
}
_LONG_RUNNING = ("serve", "consume")
_ONE_SHOT = ("init", "dead-letters", "tasks", "runs", "lost-records", "retention")
_SERVERS = ("database_url", "kafka_brokers", "redis_url")
_SCRIPT = "message-backend"  # as pyproject.toml names it
_EPILOG = """exit codes:
  0  success
  1  unexpected error; the log contains the traceback
  2  unknown or invalid setting or argument
  3  a service could not be reached in time
  4  a service rejected the credentials, or its certificate is not trusted
  5  topics or tables are missing or have another version: run init
  6  the local stack cannot run on this machine

shell completion:
  eval "$({prog} --print-completion bash)"    or zsh, or tcsh
"""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # An abbreviation that is unique today may be ambiguous after the next release.
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> None:  # type: ignore[override]
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    prog = _program_name()
    top = _Parser(
        prog=prog,
        description="A message backend: HTTP to Kafka to Celery to PostgreSQL, every message exactly once.",
        epilog=_EPILOG.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shtab.add_argument_to(top, "--print-completion", help="print a completion script for this shell, and exit")
    top.add_argument("--version", action="version", version=version())
    commands = top.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    for command in COMMANDS:
        _add_command(commands, command)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code. An error is one sentence on stderr; later errors are in the log."""
    values = vars(parser().parse_args(arguments))
    values.pop("print_completion", None)
    command = values.pop("command")
    names = {row.name for row in catalogue.settings()}
    options: dict[str, Any] = {name: value for name, value in values.items() if name not in names}
    flags = {name: value for name, value in values.items() if name in names and value is not None}
    if command in _LONG_RUNNING and any(row.secret for row in catalogue.settings() if row.name in flags):
        _hide_flags([command, *(["--only", options["only"]] if options.get("only") else [])], flags)
    if command in _ONE_SHOT:
        flags = _local_stack(command, flags)
    try:
        loaded = settings.load(flags)
        _run(command, loaded, flags, options)
    except BackendError as error:
        print(f"{_program_name()} {command}: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # a bug: its traceback becomes one log line
        events.emit("process.failed", error, reason=f"{type(error).__name__}: {error}")
        return EXIT_FAILED
    return EXIT_OK


def _local_stack(command: str, flags: dict[str, str]) -> dict[str, str]:
    """The flags, with the servers of the running local stack if no server is configured.

    All or none of them: a mixture would redrive the dead letters of one database to the topics of another.
    """
    environment = child_environment(flags)
    if any(environment.get(name.upper()) for name in _SERVERS):
        return flags
    directory = Path(environment.get("LOCAL_DIR") or ".local").resolve()
    servers = {name.lower(): value for name, value in running.variables(directory).items()}
    if servers:
        print(f"{_program_name()} {command}: using the local stack that runs on {directory}", file=sys.stderr)
    return {**servers, **flags}


def _program_name() -> str:
    """The command as the user typed it."""
    return _SCRIPT if Path(sys.argv[0]).name == _SCRIPT else "python -m bootstrap"


def _hide_flags(arguments: list[str], flags: dict[str, str]) -> NoReturn:
    """Restart the command with its flags as environment variables, because `ps` shows the flags of a process."""
    command = [sys.executable, "-m", "bootstrap", *arguments]
    os.execve(sys.executable, command, child_environment(flags))


def _run(command: str, loaded: Settings, flags: dict[str, str], options: dict[str, Any]) -> None:
    """Import only the module of the command: the image has no local stack, and init needs no web server."""
    events.configure(loaded, options.get("only") or command)
    module = importlib.import_module(f"bootstrap.commands.{command.replace('-', '_')}")
    module.run(loaded, flags, **options)


def _add_command(commands: "argparse._SubParsersAction[_Parser]", command: str) -> None:
    sub = _new_parser(commands, command, _SUMMARY[command], _EXAMPLES[command])
    if command in ACTIONS:
        actions = sub.add_subparsers(dest="action", required=True, metavar="|".join(ACTIONS[command]))
        for name, action in ACTIONS[command].items():
            parser = _new_parser(actions, name, action.summary, action.example)
            action.add_arguments(parser)
            _add_settings(parser, command)
        return
    if command == "init":
        sub.add_argument(
            "--check", action="store_true", help="change nothing; report what is missing; exit code 5 if anything is"
        )
    if command == "consume":
        sub.add_argument(
            "--only", choices=("bridge", "worker", "tasks"), help="run only this part, to scale each on its own"
        )
    if command == "lost-records":
        sub.add_argument("--topic", help="only those of this topic")
        sub.add_argument(
            "--acknowledge", metavar="NOTE", help="acknowledge them, so that /health/ready is silent again"
        )
    if command == "retention":
        sub.add_argument("--dry-run", action="store_true", help="delete nothing; count what would be deleted")
    _add_settings(sub, command)


def _new_parser(commands: "argparse._SubParsersAction[_Parser]", name: str, summary: str, example: str) -> _Parser:
    return commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {_program_name()} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_settings(sub: argparse.ArgumentParser, command: str) -> None:
    for row in catalogue.settings():
        if command in row.commands:
            default = row.default or "none"
            text = f"{row.meaning} [{row.name.upper()}, default: {default}]"
            sub.add_argument(flag(row.name), dest=row.name, metavar="…", help=text.replace("%", "%%"))
