"""The bytes of PostgreSQL's binary COPY, checked against its manual. Real PostgreSQL reads them in test_store."""

import struct

from tasks.message import Message
from tasks.store.binary_copy import COPIED_COLUMNS, encode


def test_a_row_has_every_field_with_its_length() -> None:
    message = Message(b"i" * 16, 7, 946_684_801_500, "t", None, b'{"h":1}', b"{}", False)
    encoded = encode("orders", 3, [message])
    assert encoded.startswith(b"PGCOPY\n\xff\r\n\0" + bytes(8))
    assert encoded.endswith(b"\xff\xff")
    row = encoded[19:-2]
    (count,) = struct.unpack_from(">h", row)
    fields: list[bytes | None] = []
    at = 2
    for _ in range(count):
        (length,) = struct.unpack_from(">i", row, at)
        at += 4
        fields.append(None if length == -1 else row[at : at + length])
        at += max(length, 0)
    assert at == len(row)
    assert count == len(COPIED_COLUMNS)
    assert fields == [
        b"i" * 16,
        b"t",
        None,
        b"orders",
        struct.pack(">i", 3),
        struct.pack(">q", 7),
        struct.pack(">q", 1_500_000),  # microseconds since 2000
        b'\x01{"h":1}',
        b"\x01{}",
    ]


def test_no_message_is_a_header_and_a_trailer() -> None:
    assert len(encode("orders", 0, [])) == 19 + 2
