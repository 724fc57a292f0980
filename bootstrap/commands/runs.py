"""`runs`: lists, shows, retries and discards runs of the users' tasks that failed."""

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from bootstrap.commands.terminal import plain, table, while_read
from tasks.config.settings import Settings
from tasks.errors import ConfigurationError
from tasks.store import connection, failed_runs, migrations, replays
from tasks.store.failed_runs import RunSelection

_PROGRESS = timedelta(hours=6)  # of the messages' time, between two lines


def run(settings: Settings, flags: Mapping[str, str], action: str, **options: Any) -> None:
    """Run an action of `actions.py`. Raises ConfigurationError, NotReady, Unavailable, AccessDenied."""
    connection.configure(settings.database_url, "runs", connections=1)
    with while_read(), connection.session():
        migrations.require_latest()
        _ACTIONS[action](**options)


def _list(state: str, limit: int, as_json: bool, **selected: Any) -> None:
    rows = failed_runs.page(RunSelection(state=None if state == "any" else state, **selected), limit)
    if as_json:
        for row in rows:
            print(orjson.dumps(row).decode())
        return
    heads = ("id", "changed at", "state", "attempts", "task", "topic/partition/offset", "error")
    table([heads, *map(_cells, rows)])
    if len(rows) == limit:
        print(f"the newest {limit}; --limit shows more", file=sys.stderr)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    place = "call" if row["topic"] is None else f"{row['topic']}/{row['partition']}/{row['offset']}"
    changed = row["changed_at"].astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return str(row["id"]), changed, row["state"], str(row["attempts"]), row["task"], place, plain(row["error"])


def _show(run_id: int) -> None:
    row = failed_runs.find(run_id)
    if row is None:
        raise ConfigurationError(f"there is no run {run_id}")
    trace = row.pop("traceback")
    width = max(map(len, row))
    for name, value in row.items():
        print(f"{name.ljust(width)}  {'-' if value is None else plain(str(value))}")
    print(*map(plain, trace.splitlines()), sep="\n")


def _retry(everything: bool, dry_run: bool, **selected: Any) -> None:
    selection = _chosen(everything, selected)
    if dry_run:
        print(f"would retry {failed_runs.count(selection)}; nothing was changed")
        return
    print(f"{failed_runs.retry(selection)} are run once more")


def _discard(everything: bool, dry_run: bool, note: str, **selected: Any) -> None:
    selection = _chosen(everything, selected)
    if dry_run:
        print(f"would discard {failed_runs.count(selection)}; nothing was changed")
        return
    print(f"discarded {failed_runs.discard(selection, note)}")


def _replay(task: str, since: datetime, until: datetime, again: bool, dry_run: bool) -> None:
    messages, shown = 0, since
    for step in replays.replay(task, since, until, again, dry_run):
        messages += step.messages
        if step.until - shown >= _PROGRESS:
            shown = step.until
            print(f"until {shown.astimezone(UTC):%Y-%m-%d %H:%M}Z: {messages}", flush=True)
    print(f"would run {task} for {messages}; nothing was changed" if dry_run else f"{task} runs for {messages}")


def _chosen(everything: bool, selected: dict[str, Any]) -> RunSelection:
    """The selected failed runs, but none that fails from now on."""
    if not everything and not any(selected.values()):
        raise ConfigurationError("select with --id, --task, --from, --to, or --all")
    until = selected.pop("until") or datetime.now(UTC)
    selection = RunSelection(**selected, until=until)
    unknown = [str(number) for number in selection.ids if failed_runs.find(number) is None]
    if unknown:
        raise ConfigurationError(f"there is no run {', '.join(unknown)}")
    return selection


_ACTIONS: dict[str, Callable[..., None]] = {
    "list": _list,
    "show": _show,
    "retry": _retry,
    "replay": _replay,
    "discard": _discard,
}
