"""The command line: help that explains, one line for what is wrong, exit codes that are documented."""

import re
import shlex

import pytest

from bootstrap import cli
from bootstrap.commands.actions import ACTIONS
from tasks import errors
from tasks.config import catalogue
from tasks.config.setting import COMMANDS, flag


def run(*arguments: str) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        return ended.code


@pytest.mark.parametrize(
    ("command", "action"),
    [(command, "") for command in COMMANDS if command not in ACTIONS]
    + [(command, action) for command, actions in ACTIONS.items() for action in actions],
)
def test_help_lists_every_flag_with_its_variable_and_an_example(
    command: str, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, *action.split(), "--help") == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for row in catalogue.settings():
        if command in row.commands:
            assert f"{flag(row.name)} " in text
            assert f"[{row.name.upper()}, default: {row.default or 'none'}]" in text
    assert f"python -m bootstrap {command} {action}".rstrip() in text


@pytest.mark.parametrize("command", ACTIONS)
def test_every_example_of_an_action_is_accepted(command: str) -> None:
    for action in ACTIONS[command].values():
        cli.parser().parse_args(shlex.split(action.example))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["serve", "--port", "many"], "--port"),
        (["serve", "--prot", "1"], "--prot"),
        (["explode"], "explode"),
        ([], "init|serve|consume|local|dead-letters|tasks|runs|lost-records|retention"),
        (["consume", "--only", "everything"], "--only"),
        (["init", "--database-url", "mysql://x"], "DATABASE_URL"),
        (["dead-letters"], "list|show|redrive|discard"),
        (["dead-letters", "list", "--id", "7"], "'7' is not a UUID"),
        (["dead-letters", "list", "--from", "yesterday"], "--from"),
        (["dead-letters", "list", "--to", "2026-01-31T12:00:00"], "time zone"),
        (["dead-letters", "list", "--limit", "0"], "--limit"),
        (["dead-letters", "list", "--state", "lost"], "--state"),
        (["dead-letters", "show"], "ID"),
        (["dead-letters", "discard", "--all"], "--note"),
        (["dead-letters", "discard", "--all", "--note", " "], "--note"),
        (["dead-letters", "redrive", "--everything"], "--everything"),
        (["init", "--kafka-part", "3"], "--kafka-part"),
        (["retention", "--retention-days", "-1"], "RETENTION_DAYS"),
        (["retention", "--dead-letter-retention-days", "soon"], "DEAD_LETTER_RETENTION_DAYS"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_2(
    arguments: list[str], names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert names in said
    assert len(said.splitlines()) == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_every_exit_code_is_documented_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    run("--help")
    documented = set(re.findall(r"^  (\d)  ", capsys.readouterr().out, re.MULTILINE))
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BackendError)]
    assert documented == {str(kind.exit_code) for kind in kinds} | {str(errors.EXIT_OK)}
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in kinds)
