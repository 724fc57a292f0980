"""Every query on `dead_letter` except its INSERT, which is part of storing a batch."""

import uuid
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, TypeAlias

import orjson
from peewee import ModelSelect, Tuple, fn

from tasks.errors import BadRecord
from tasks.json_value import parse
from tasks.message import ID_HEADER, NO_BODY, REDRIVEN_HEADER, Record, read_body, sender_id
from tasks.store.connection import database
from tasks.store.models import DeadLetter
from tasks.store.rows import Keyset, delete_batches, narrowed, pieces

Letters: TypeAlias = "ModelSelect[DeadLetter]"

_BYTES = (DeadLetter.key, DeadLetter.value, DeadLetter.headers)
_FIELDS = tuple(field for field in DeadLetter._meta.sorted_fields if field not in _BYTES)
_CLAIMED_BYTES = 8_000_000  # of the letters of a claim, but for a single one that is larger
_DISCARD_ROWS = 5_000  # in one transaction, which is short enough that nobody waits for it

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
    """A selection of dead letters; None and () select any. `since` and `until` bound dead_at; `until` is exclusive."""

    ids: Sequence[uuid.UUID] = ()
    topic: str | None = None
    reason: str | None = None
    state: str | None = "waiting"
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Group:
    """The number of selected dead letters of a topic and reason, and the `dead_at` of the newest."""

    topic: str
    reason: str
    count: int
    newest: datetime


def find(letter_id: uuid.UUID) -> DeadLetter | None:
    """The dead letter with this id, with its bytes."""
    return DeadLetter.get_or_none(DeadLetter.id == letter_id)


def find_without_bytes(letter_id: uuid.UUID) -> DeadLetter | None:
    """The dead letter with this id, without its bytes."""
    letter: DeadLetter | None = DeadLetter.select(*_FIELDS).where(DeadLetter.id == letter_id).first()
    return letter


def size(letter_id: uuid.UUID) -> int:
    """The bytes of a dead letter's key, value and headers, which are not read; 0 if the letter does not exist."""
    columns = (DeadLetter.key, DeadLetter.value, DeadLetter.headers.cast("text"))
    lengths = DeadLetter.select(*map(fn.octet_length, columns)).where(DeadLetter.id == letter_id).tuples().first()
    return sum(length or 0 for length in lengths or ())


def value(letter_id: uuid.UUID) -> Iterator[bytes]:
    """The value of a dead letter as `pieces`; nothing if it has none."""

    def read(begin: int, length: int) -> Any:
        part = fn.substring(DeadLetter.value, begin, length)
        return DeadLetter.select(part).where(DeadLetter.id == letter_id).scalar()

    return pieces(read)


def find_unsolved(message_id: uuid.UUID, topic: str | None = None) -> DeadLetter | None:
    """The dead letter with this message id, or with this id of its own, unless it was redriven."""
    same = (DeadLetter.message_id == message_id) | (DeadLetter.id == message_id)
    if topic is not None:
        same &= DeadLetter.topic == topic
    return DeadLetter.get_or_none(same & (DeadLetter.state != "redriven"))


def states(ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, str]:
    """The state of each of `ids` that exists."""
    rows = DeadLetter.select(DeadLetter.id, DeadLetter.state).where(DeadLetter.id.in_(ids))
    return {letter.id: letter.state for letter in rows}


def page(selection: Selection, limit: int, before: Keyset | None = None) -> list[DeadLetter]:
    """The newest `limit` dead letters without their bytes, newest first, older than the keyset `before`."""
    query = _narrowed(DeadLetter.select(*_FIELDS), selection)
    if before is not None:
        query = query.where(Tuple(DeadLetter.dead_at, DeadLetter.id) < Tuple(*before))
    return list(query.order_by(DeadLetter.dead_at.desc(), DeadLetter.id.desc()).limit(limit))


def groups(selection: Selection) -> list[Group]:
    """The selected dead letters, counted by topic and reason."""
    by = (DeadLetter.topic, DeadLetter.reason)
    query = DeadLetter.select(*by, fn.count(DeadLetter.id), fn.max(DeadLetter.dead_at))
    rows: Any = _narrowed(query, selection).group_by(*by).order_by(*by).tuples()
    return [Group(*row) for row in rows]


def claim(selection: Selection, after: Keyset | None, limit: int) -> list[DeadLetter]:
    """Up to `limit` dead letters with their bytes, oldest first, younger than the keyset `after` (dead_at, id).

    Fewer if their values have more than 8 MB; at least one if there is any. The caller's transaction locks them until
    it ends, and skips those that another transaction holds, so two operators at once never handle the same one.
    """
    query = _narrowed(DeadLetter.select(DeadLetter.id, fn.octet_length(DeadLetter.value)), selection)
    if after is not None:
        query = query.where(Tuple(DeadLetter.dead_at, DeadLetter.id) > Tuple(*after))
    oldest_first = query.order_by(DeadLetter.dead_at, DeadLetter.id).limit(limit)
    rows: Any = oldest_first.for_update(skip_locked=True).tuples()
    locked: list[tuple[uuid.UUID, int | None]] = list(rows)
    totals = accumulate(length or 0 for _, length in locked)
    few = [letter_id for (letter_id, _), total in zip(locked, totals, strict=True) if total <= _CLAIMED_BYTES]
    ids = few or [letter_id for letter_id, _ in locked[:1]]
    return list(DeadLetter.select().where(DeadLetter.id.in_(ids)).order_by(DeadLetter.dead_at, DeadLetter.id))


def mark_redriven(ids: Sequence[uuid.UUID]) -> None:
    """Mark dead letters as redriven. They are kept."""
    _mark(ids, "redriven", None)


def discard(selection: Selection, note: str) -> Iterator[int]:
    """Mark the selected dead letters as discarded, with a note; yields the count of each short transaction."""
    while True:
        with database.atomic():
            query = _narrowed(DeadLetter.select(DeadLetter.id), selection).order_by(DeadLetter.dead_at, DeadLetter.id)
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
    """Delete those redriven or discarded before `moment`; yields the count of each short transaction."""
    return delete_batches(_DELETE_HANDLED, moment)


def record_of(letter: DeadLetter) -> Record:
    """The record as Kafka delivered it, byte for byte."""
    headers = [] if letter.headers is None else orjson.loads(letter.headers)
    return Record(
        letter.topic,
        letter.partition,
        letter.offset,
        -1 if letter.produced_at is None else round(letter.produced_at.timestamp() * 1000),
        None if letter.key is None else bytes(letter.key),
        None if letter.value is None else bytes(letter.value),
        [(name, None if raw is None else b64decode(raw)) for name, raw in headers],
    )


def fields(letter: DeadLetter) -> dict[str, Any]:
    """The fields of a dead letter as JSON values, without its bytes."""
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
    """The record to produce again: as it was, with a header that names the dead letter.

    A record without an id of its own would get a different one from each new place. It gets the dead
    letter's id, so that it is stored once if it is redriven twice.
    """
    record = record_of(letter)
    headers = [*(record.headers or ()), (REDRIVEN_HEADER, str(letter.id).encode())]
    if not _has_own_id(record):
        headers.append((ID_HEADER, str(letter.id).encode()))
    return record._replace(headers=headers)


def _has_own_id(record: Record) -> bool:
    """Whether the sender gave the record an id. Only a possible CloudEvent is parsed: parsing may kill the process."""
    body = NO_BODY
    if record.value is not None and b'"specversion"' in record.value:
        with suppress(BadRecord):
            body = read_body(parse(record.value))
    return sender_id(record.headers, body) is not None


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _mark(ids: Sequence[uuid.UUID], state: str, note: str | None) -> None:
    done: dict[str, Any] = {"state": state, "handled_at": datetime.now(UTC), "note": note}
    DeadLetter.update(done).where(DeadLetter.id.in_(ids)).execute()


def _narrowed(query: Letters, selection: Selection) -> Letters:
    if selection.ids:
        query = query.where(DeadLetter.id.in_(selection.ids))
    wanted = (
        (DeadLetter.topic, selection.topic),
        (DeadLetter.reason, selection.reason),
        (DeadLetter.state, selection.state),
    )
    return narrowed(query, wanted, DeadLetter.dead_at, selection.since, selection.until)
