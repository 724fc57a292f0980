"""Records of Kafka and the messages in them: the only module that reads the fields of a message.

A record is one of our API, any JSON value, or a CloudEvent (structured or binary mode, CloudEvents 1.0
and its Kafka protocol binding). A record that cannot become a message raises BadRecord with a reason.
"""

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from tasks.errors import BadRecord
from tasks.json_value import parse

ID_HEADER = "message-id"  # set by the API
OUTBOX_HEADER = "id"  # set by the event router of an outbox table
REDRIVEN_HEADER = "redriven-from"  # the dead letter's id
# Headers that change when the same message is sent again: traces (W3C, B3) and our own.
CHANGING_HEADERS = ("traceparent", "tracestate", "baggage", "b3", REDRIVEN_HEADER, ID_HEADER)
_SOURCE_NAMESPACE = uuid.UUID("6f9b1d9e-6a57-5d0e-9f0b-0d5c1c7e6a01")  # of ids made from CloudEvents source and id
_LATEST_IN_ID = (1 << 48) - 1  # milliseconds: a UUID has 48 bits for them
# The years 1 to 9999 in every time zone, milliseconds since 1970: a day less at each end.
_EARLIEST_TIMESTAMP, _LATEST_TIMESTAMP = -62_135_510_400_000, 253_402_214_400_000
_NO_TIMESTAMP = -1  # RecordBatch.NO_TIMESTAMP of Kafka

Headers = Sequence[tuple[str, bytes | None]]


class Record(NamedTuple):
    """A record as Kafka delivered it: the bytes and the place."""

    topic: str
    partition: int
    offset: int
    timestamp: int  # as in Kafka; see `produced_at`
    key: bytes | None
    value: bytes | None
    headers: Headers | None  # None: the Kafka client could not return them


class Message(NamedTuple):
    """A message ready to be stored. `id` is the 16 bytes of its UUID; `payload` is JSON text, as sent.

    `timestamp` is in milliseconds since 1970.
    """

    id: bytes
    offset: int
    timestamp: int | None
    type: str | None
    key: str | None
    headers: bytes | None
    payload: bytes | None
    has_own_id: bool  # it came with the record, so no other message of the topic may have it


class Body(NamedTuple):
    """The fields of a JSON value that have a meaning; an absent one is None."""

    event_id: bytes | None  # made from the source and id of a structured CloudEvent
    type: str | None


NO_BODY = Body(None, None)


def decode(record: Record, body: Body | None = None) -> Message:
    """The message in `record`; a tombstone (no value) is a message without payload.

    `body` is the result of `read_body`, for a caller that has parsed the value already.
    Raises BadRecord: invalid_utf8, not_json, nul, bad_header.
    """
    if record.headers is None:
        raise unreadable_headers()
    if body is None:
        body = NO_BODY if record.value is None else read_body(parse(record.value))
    own_id, message_type, key = identify(record.key, record.headers, body)
    return Message(
        own_id or record_id(record),
        record.offset,
        produced_at(record.timestamp),
        message_type,
        key,
        None if not record.headers else headers_json(record.headers),
        record.value,
        own_id is not None,
    )


def unreadable_headers() -> BadRecord:
    """The error of a record whose `headers` are None."""
    return BadRecord("bad_header", "the name of a header is not UTF-8; the Kafka client returns none of its headers")


def produced_at(timestamp: int) -> int | None:
    """A record's timestamp, in milliseconds since 1970; None if it has none, or one outside the years 1 to 9999.

    Producers that count microseconds write the year 57000. That costs the record its time, not its payload.
    """
    if timestamp == _NO_TIMESTAMP or not _EARLIEST_TIMESTAMP <= timestamp <= _LATEST_TIMESTAMP:
        return None
    return timestamp


def identify(key: bytes | None, headers: Headers, body: Body) -> tuple[bytes | None, str | None, str | None]:
    """The sender's id, the type and the key of a record."""
    message_type = body.type
    if headers:
        message_type = _text(dict(headers).get("ce_type")) or message_type
    return sender_id(headers, body), message_type, _text(key)


def content(key: bytes | None, headers: Headers, payload: Any) -> tuple[Any, ...]:
    """What must be equal for two messages with one id to be the same message. `payload` is the parsed value.

    The worker compares the same in SQL (`tasks/store/batch_copy.py`).
    """
    compared = {name: value for name, value in headers if name not in CHANGING_HEADERS}
    compared[OUTBOX_HEADER] = (compared.get(OUTBOX_HEADER) or b"").lower()  # a UUID in upper case is the same UUID
    return key, compared, payload


def sender_id(headers: Headers | None, body: Body) -> bytes | None:
    """The id that the sender gave the record: 16 bytes, or None if the record has only its place.

    The first of: the header `message-id`, the header `id`, if they are UUIDs; the `source` and `id` of a
    CloudEvent, in either mode. A value that is not a UUID never hides the next source, and a field `id` of any
    other JSON value is data: in a change stream it is the entity's, and every version of the entity has it.
    """
    if not headers:
        return body.event_id
    values = dict(headers)
    for name in (ID_HEADER, OUTBOX_HEADER):
        raw = values.get(name)
        event_id = None if raw is None else uuid_bytes(text_of(raw))
        if event_id is not None:
            return event_id
    return _source_id(_text(values.get("ce_source")), _text(values.get("ce_id"))) or body.event_id


def read_body(parsed: Any) -> Body:
    """The fields of a parsed JSON value."""
    if type(parsed) is not dict:
        return NO_BODY
    kind = parsed.get("type")
    event_id = _source_id(parsed.get("source"), parsed.get("id")) if "specversion" in parsed else None
    return Body(event_id, kind if type(kind) is str else None)


def uuid_bytes(text: str) -> bytes | None:
    """The 16 bytes of a UUID written as 8-4-4-4-12 hexadecimal digits, else None."""
    if len(text) != 36 or text[8] != "-" or text[13] != "-" or text[18] != "-" or text[23] != "-":
        return None
    try:
        made = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return None
    return made if len(made) == 16 else None


def record_id(record: Record) -> bytes:
    """The id of a record that has no id of its own: the same whenever the same record is read.

    A UUIDv8 (RFC 9562, section 5.8): the timestamp, then a hash of the place. New ids are the highest then, so that
    their entries go to the right edge of an index, which need not be read for them. The timestamp is part of the hash
    as well, because a topic that is deleted and recreated counts its offsets from 0 again, and its new records must
    not be taken for the old ones.
    """
    place = f"{record.topic}/{record.partition}/{record.offset}/{record.timestamp}"
    milliseconds = min(max(record.timestamp, 0), _LATEST_IN_ID)
    made = bytearray(
        milliseconds.to_bytes(6, "big") + hashlib.sha1(place.encode(), usedforsecurity=False).digest()[:10]
    )
    made[6] = made[6] & 0x0F | 0x80
    made[8] = made[8] & 0x3F | 0x80
    return bytes(made)


def text_of(raw: bytes) -> str:
    """Bytes as text; bytes that are not UTF-8, or contain NUL, as PostgreSQL writes bytea: `\\x` and hexadecimal."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "\\x" + raw.hex()
    return "\\x" + raw.hex() if "\0" in text else text


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else text_of(raw)


def _source_id(source: Any, event_id: Any) -> bytes | None:
    if type(source) is not str or type(event_id) is not str:
        return None
    # A JSON array of both, because any separator may be part of either.
    return uuid.uuid5(_SOURCE_NAMESPACE, orjson.dumps([source, event_id]).decode()).bytes


def headers_json(headers: Headers) -> bytes:
    """Headers as a JSON object; a name that occurs more than once has a list of values."""
    values: dict[str, Any] = {}
    for name, raw in headers:
        text = _text(raw)
        name = name.replace("\0", "\\x00")
        if name not in values:
            values[name] = text
        elif isinstance(values[name], list):
            values[name].append(text)
        else:
            values[name] = [values[name], text]
    return orjson.dumps(values)
