"""What becomes of dead letters: every query on `dead_letter` but its writing, which is part of storing a batch."""

import uuid
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import orjson
from peewee import ModelSelect, Tuple, fn

from tasks.database import database, delete_batches
from tasks.envelope import ID_HEADER, NO_BODY, REDRIVEN_HEADER, Record, identify, parse, read_body
from tasks.errors import BadRecord
from tasks.models import DeadLetter

Keyset = tuple[datetime, uuid.UUID]
Letters: TypeAlias = "ModelSelect[DeadLetter]"

_BYTES = (DeadLetter.key, DeadLetter.value, DeadLetter.headers)
_DISCARD_ROWS = 5_000  # in one transaction: short enough that nobody waits for it

_DELETE_HANDLED = """
    WITH oldest AS (
        SELECT id FROM dead_letter
        WHERE state <> 'waiting' AND handled_at < %(before)s
            AND (handled_at, id) > (%(after_time)s, %(after_id)s::uuid)
        ORDER BY handled_at, id LIMIT %(rows)s FOR UPDATE SKIP LOCKED
    )
    DELETE FROM dead_letter USING oldest WHERE dead_letter.id = oldest.id RETURNING handled_at, dead_letter.id
"""


@dataclass(frozen=True)
class Selection:
    """Which dead letters; None and () mean any. `since` and `until` bound dead_at, the latter exclusive."""

    ids: Sequence[uuid.UUID] = ()
    topic: str | None = None
    reason: str | None = None
    state: str | None = "waiting"
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Group:
    """How many selected dead letters one topic has for one reason, and when the newest of them died."""

    topic: str
    reason: str
    count: int
    newest: datetime


def find(letter_id: uuid.UUID) -> DeadLetter | None:
    """The dead letter with this id, with its bytes."""
    return DeadLetter.get_or_none(DeadLetter.id == letter_id)


def find_unsolved(message_id: uuid.UUID, topic: str | None = None) -> DeadLetter | None:
    """The dead letter that is all there is of a message: with this message id, or this id of its own, not redriven."""
    same = (DeadLetter.message_id == message_id) | (DeadLetter.id == message_id)
    if topic is not None:
        same &= DeadLetter.topic == topic
    return DeadLetter.get_or_none(same & (DeadLetter.state != "redriven"))


def states(ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, str]:
    """The state of each of `ids` that exists."""
    found = DeadLetter.select(DeadLetter.id, DeadLetter.state).where(DeadLetter.id.in_(ids))
    return {letter.id: letter.state for letter in found}


def page(wanted: Selection, limit: int, before: Keyset | None = None) -> list[DeadLetter]:
    """The newest `limit` dead letters without their bytes, newest first, older than the keyset `before`."""
    columns = [field for field in DeadLetter._meta.sorted_fields if field not in _BYTES]
    query = _narrowed(DeadLetter.select(*columns), wanted)
    if before is not None:
        query = query.where(Tuple(DeadLetter.dead_at, DeadLetter.id) < Tuple(*before))
    return list(query.order_by(DeadLetter.dead_at.desc(), DeadLetter.id.desc()).limit(limit))


def groups(wanted: Selection) -> list[Group]:
    """The selected dead letters, counted by topic and reason."""
    by = (DeadLetter.topic, DeadLetter.reason)
    query = DeadLetter.select(*by, fn.count(DeadLetter.id), fn.max(DeadLetter.dead_at))
    rows: Any = _narrowed(query, wanted).group_by(*by).order_by(*by).tuples()
    return [Group(*row) for row in rows]


def claim(wanted: Selection, after: Keyset | None, limit: int) -> list[DeadLetter]:
    """Up to `limit` dead letters with their bytes, oldest first, younger than the keyset `after` (dead_at, id).

    They belong to the transaction around this call until it ends; what another one holds is passed over,
    so that two operators at once never handle the same one.
    """
    query = _narrowed(DeadLetter.select(), wanted)
    if after is not None:
        query = query.where(Tuple(DeadLetter.dead_at, DeadLetter.id) > Tuple(*after))
    oldest_first = query.order_by(DeadLetter.dead_at, DeadLetter.id).limit(limit)
    return list(oldest_first.for_update(skip_locked=True))


def mark_redriven(ids: Sequence[uuid.UUID]) -> None:
    """Say that these are in Kafka again. They are kept."""
    _mark(ids, "redriven", None)


def discard(wanted: Selection, note: str) -> Iterator[int]:
    """Say of the selected ones that nobody needs them, and why; yields how many after each short transaction."""
    while True:
        with database.atomic():
            query = _narrowed(DeadLetter.select(DeadLetter.id), wanted).order_by(DeadLetter.dead_at, DeadLetter.id)
            ids = [letter.id for letter in query.limit(_DISCARD_ROWS).for_update(skip_locked=True)]
            if ids:
                _mark(ids, "discarded", note)
        if not ids:
            return
        yield len(ids)


def count_handled_before(moment: datetime) -> int:
    """How many dead letters were redriven or discarded before `moment`."""
    return DeadLetter.select().where(DeadLetter.state != "waiting", DeadLetter.handled_at < moment).count()


def delete_handled_before(moment: datetime) -> Iterator[int]:
    """Delete those redriven or discarded before `moment`; yields how many after each short transaction."""
    return delete_batches(_DELETE_HANDLED, moment)


def record_of(letter: DeadLetter) -> Record:
    """The record as Kafka gave it, byte for byte."""
    headers = [] if letter.headers is None else orjson.loads(letter.headers)
    return Record(
        letter.topic,
        letter.partition,
        letter.offset,
        round(letter.produced_at.timestamp() * 1000),
        None if letter.key is None else bytes(letter.key),
        None if letter.value is None else bytes(letter.value),
        [(name, None if raw is None else b64decode(raw)) for name, raw in headers],
    )


def fields(letter: DeadLetter) -> dict[str, Any]:
    """What is known of a dead letter but for its bytes, as JSON takes it."""
    return {
        "id": str(letter.id),
        "state": letter.state,
        "reason": letter.reason,
        "detail": letter.detail,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "message_id": None if letter.message_id is None else str(letter.message_id),
        "produced_at": _moment(letter.produced_at),
        "dead_at": _moment(letter.dead_at),
        "handled_at": _moment(letter.handled_at),
        "note": letter.note,
    }


def redriven(letter: DeadLetter) -> Record:
    """The record to produce again: as it was, with a header that says where it comes from.

    A record without an id of its own would get one from its new place, another one each time. It is
    given the dead letter's, so that redriven twice it is stored once.
    """
    record = record_of(letter)
    headers = [*record.headers, (REDRIVEN_HEADER, str(letter.id).encode())]
    if not _has_own_id(record):
        headers.append((ID_HEADER, str(letter.id).encode()))
    return record._replace(headers=headers)


def _has_own_id(record: Record) -> bool:
    """Whether its sender gave the record an id. Only what may be a CloudEvent is parsed: parsing may be what kills."""
    body = NO_BODY
    if record.value is not None and b'"specversion"' in record.value:
        with suppress(BadRecord):
            body = read_body(parse(record.value))
    return identify(record.headers, body) is not None


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _mark(ids: Sequence[uuid.UUID], state: str, note: str | None) -> None:
    done: dict[str, Any] = {"state": state, "handled_at": datetime.now(UTC), "note": note}
    DeadLetter.update(done).where(DeadLetter.id.in_(ids)).execute()


def _narrowed(query: Letters, wanted: Selection) -> Letters:
    if wanted.ids:
        query = query.where(DeadLetter.id.in_(wanted.ids))
    for column, value in (
        (DeadLetter.topic, wanted.topic),
        (DeadLetter.reason, wanted.reason),
        (DeadLetter.state, wanted.state),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(DeadLetter.dead_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(DeadLetter.dead_at < wanted.until)
    return query
