"""`dead-letters`: lists, shows, redrives and discards dead letters, and releases quarantined partitions."""

import signal
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from bootstrap.commands.terminal import plain, table, while_read
from bridge.kafka import topics
from bridge.kafka.publisher import KafkaPublisher
from bridge.redrive import redrive
from tasks.config.settings import Settings
from tasks.errors import BackendError, ConfigurationError, NotReady, Unavailable
from tasks.store import bridge_status, connection, dead_letters, migrations
from tasks.store.dead_letters import Group, Selection
from tasks.store.models import DeadLetter

_PROGRESS_EVERY = 1_000


def run(settings: Settings, flags: Mapping[str, str], action: str, **options: Any) -> None:
    """Run an action of `actions.py`. Raises ConfigurationError, NotReady, Unavailable, AccessDenied."""
    connection.configure(settings.database_url, "dead-letters", connections=1)
    with while_read(), connection.session():
        migrations.require_latest()
        _ACTIONS[action](settings, **options)


def _list(settings: Settings, state: str, limit: int, as_json: bool, **selected: Any) -> None:
    selection = Selection(state=None if state == "any" else state, **selected)
    letters = dead_letters.page(selection, limit)
    if as_json:
        for letter in letters:
            print(orjson.dumps(dead_letters.fields(letter)).decode())
        return
    heads = ("id", "dead at", "state", "reason", "topic/partition/offset", "detail")
    rows = [heads, *(_row(letter) for letter in letters)]
    table(rows)
    if len(letters) == limit:
        print(f"the newest {limit}; --limit shows more", file=sys.stderr)


def _show(settings: Settings, letter_id: uuid.UUID, raw: bool) -> None:
    letter = dead_letters.find(letter_id)
    if letter is None:
        raise ConfigurationError(f"there is no dead letter {letter_id}")
    record = dead_letters.record_of(letter)
    if raw:
        sys.stdout.buffer.write(record.value or b"")
        return
    shown = {name: "-" if value is None else plain(str(value)) for name, value in dead_letters.fields(letter).items()}
    shown["key"] = _text(record.key)
    for name, value in record.headers or ():
        shown[f"header {plain(name)}"] = _text(value)
    shown["value"] = _text(record.value)
    width = max(map(len, shown))
    for name, text in shown.items():
        print(f"{name.ljust(width)}  {text}")


def _redrive(settings: Settings, everything: bool, dry_run: bool, **selected: Any) -> None:
    groups, selection = chosen(everything, selected)
    if dry_run:
        _print_dry_run("redrive", groups)
        return
    missing = topics.missing(settings, sorted({group.topic for group in groups})) if groups else []
    if missing:
        raise NotReady(f"Kafka has no topic {', '.join(missing)}: create it with init, or select with --topic")
    redriven, failed = _produce(settings, selection, sum(group.count for group in groups))
    print(f"redriven {redriven}, failed {len(failed)}")
    if failed:
        letter_id, error = next(iter(failed.items()))
        raise Unavailable(f"{len(failed)} dead letter(s) could not be redriven and wait; {letter_id}: {error}")


def _produce(settings: Settings, selection: Selection, total: int) -> tuple[int, dict[uuid.UUID, BackendError]]:
    """Redrive until the end, an outage, or Ctrl-C, which ends after a batch, so that everything sent is marked."""
    asked_to_stop = []
    before = signal.signal(signal.SIGINT, lambda *_: asked_to_stop.append(True))
    publisher = KafkaPublisher(settings)
    redriven = shown = 0
    failed: dict[uuid.UUID, BackendError] = {}
    try:
        for batch in redrive(publisher, selection):
            redriven += len(batch.redriven)
            failed |= batch.failed
            if redriven - shown >= _PROGRESS_EVERY:
                shown = redriven
                print(f"redriven {redriven} of {total}", flush=True)
            if asked_to_stop:
                print("stopped; the rest waits")
                break
    finally:
        publisher.close()
        signal.signal(signal.SIGINT, before)
    return redriven, failed


def _discard(settings: Settings, everything: bool, dry_run: bool, note: str, **selected: Any) -> None:
    groups, selection = chosen(everything, selected)
    if dry_run:
        _print_dry_run("discard", groups)
        return
    print(f"discarded {sum(dead_letters.discard(selection, note))}")


def _release(settings: Settings, topic: str, partition: int | None) -> None:
    count = bridge_status.release(topic, partition)
    print(
        f"{count} partition(s) are read again within {bridge_status.REPORT_SECONDS:.0f} s"
        if count
        else "no partition was quarantined"
    )


def chosen(everything: bool, selected: dict[str, Any]) -> tuple[list[Group], Selection]:
    """The selected waiting dead letters by group, and a selection that excludes later ones.

    Without that limit, redriven records that become dead letters again would be redriven forever.
    """
    if not everything and not any(selected.values()):
        raise ConfigurationError("select with --id, --topic, --reason, --from, --to, or --all")
    selection = Selection(**selected)
    known = dead_letters.states(selection.ids) if selection.ids else {}
    unknown = [str(letter_id) for letter_id in selection.ids if letter_id not in known]
    if unknown:
        raise ConfigurationError(f"there is no dead letter {', '.join(unknown)}")
    for letter_id, state in known.items():
        if state != "waiting":
            print(f"{letter_id} is {state} already")
    groups = dead_letters.groups(selection)
    newest = max((group.newest for group in groups), default=datetime.now(UTC))
    return groups, replace(selection, until=newest + timedelta(microseconds=1))


def _print_dry_run(verb: str, groups: list[Group]) -> None:
    for group in groups:
        print(f"would {verb} {group.count} of topic {group.topic}, reason {group.reason}")
    print(f"would {verb} {sum(group.count for group in groups)}; nothing was changed")


def _row(letter: DeadLetter) -> tuple[str, ...]:
    place = f"{letter.topic}/{letter.partition}/{letter.offset}"
    died = letter.dead_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return str(letter.id), died, letter.state, letter.reason, place, plain(letter.detail)


def _text(raw: bytes | None) -> str:
    """Bytes for a terminal: bytes that are not UTF-8 as \\x and two digits."""
    return "(none)" if raw is None else plain(raw.decode(errors="backslashreplace"))


_ACTIONS: dict[str, Callable[..., None]] = {
    "list": _list,
    "show": _show,
    "redrive": _redrive,
    "discard": _discard,
    "release": _release,
}
