"""PostgreSQL's binary COPY format, for the columns of `message` (PostgreSQL manual, COPY, "Binary Format").

In the text format every backslash of a payload would have to be escaped, and PostgreSQL would parse it back.
"""

from collections.abc import Iterable, Sequence
from struct import Struct

from tasks.message import Message
from tasks.store import models

COPIED_COLUMNS = tuple(f'"{name}"' for name in models.COLUMNS if name != "stored_at")  # PostgreSQL sets stored_at

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, flags, length of extension
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_FIELDS_AND_ID = Struct(">hi").pack(len(COPIED_COLUMNS), 16)
_CLAIM_AND_ID = Struct(">hi").pack(2, 16)
_length = Struct(">i").pack
_int4 = Struct(">ii").pack
_offset_and_time = Struct(">iqiq").pack
_offset_only = Struct(">iqi").pack
_POSTGRES_EPOCH_MS = 946_684_800_000  # 2000-01-01, in milliseconds since 1970


def encode(topic: str, partition: int, messages: Sequence[Message]) -> bytes:
    """The messages of one partition as input for COPY ... (COPIED_COLUMNS) FROM STDIN (FORMAT binary)."""
    pieces = [_HEADER]
    place = _text(topic) + _int4(4, partition)
    types: dict[str | None, bytes] = {None: _NULL}  # there are few distinct types: each is encoded once
    for message_id, offset, timestamp, kind, key, headers, payload, _ in messages:
        encoded_type = types.get(kind)
        if encoded_type is None:
            encoded_type = types[kind] = _text(kind)
        pieces += (
            _FIELDS_AND_ID,
            message_id,
            encoded_type,
            _NULL if key is None else _text(key),
            place,
            _offset_only(8, offset, -1)
            if timestamp is None
            else _offset_and_time(8, offset, 8, (timestamp - _POSTGRES_EPOCH_MS) * 1000),
            _NULL if headers is None else _jsonb(headers),
            _NULL if payload is None else _jsonb(payload),
        )
    pieces.append(_TRAILER)
    return b"".join(pieces)


def encode_claims(topic: str, messages: Iterable[Message]) -> bytes:
    """The ids of messages of one topic as input for COPY claim (id, topic) FROM STDIN (FORMAT binary)."""
    tail = _text(topic)
    return b"".join([_HEADER, *(_CLAIM_AND_ID + message.id + tail for message in messages), _TRAILER])


def _text(value: str | None) -> bytes:
    raw = (value or "").encode()
    return _length(len(raw)) + raw


def _jsonb(text: bytes) -> bytes:
    return _length(len(text) + 1) + b"\x01" + text  # the version of jsonb's format, then JSON text
