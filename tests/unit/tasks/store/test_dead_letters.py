"""What a dead letter becomes when it is produced again: itself, with where it comes from, and an id if it has none."""

import uuid

import pytest

from tasks import message
from tasks.message import Headers, Record
from tasks.store import batches, dead_letters
from tasks.store.models import DeadLetter

OWN = "00000000-0000-4000-8000-000000000001"


def letter(value: bytes | None, key: bytes | None = None, headers: Headers = ()) -> DeadLetter:
    record = Record("topic", 3, 7, 1_700_000_000_123, key, value, headers)
    return DeadLetter(**batches._dead_row(batches.Dead(record, "reason", "detail")))


def test_the_record_comes_back_as_kafka_gave_it() -> None:
    headers = [("h", b"\x00\xff"), ("h", b""), ("none", None), ("\u00e9", b"1")]
    buried = letter(b"\xff\x00", b"\xfe", headers)
    assert dead_letters.record_of(buried) == Record("topic", 3, 7, 1_700_000_000_123, b"\xfe", b"\xff\x00", headers)
    assert dead_letters.record_of(letter(None)) == Record("topic", 3, 7, 1_700_000_000_123, None, None, [])


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (b"{}", [("message-id", OWN.encode())]),
        (b"not json", [("id", OWN.encode())]),
        (b'{"specversion": "1.0", "source": "s", "id": "1"}', []),
    ],
)
def test_an_id_of_its_own_stays_untouched(value: bytes, headers: Headers) -> None:
    buried = letter(value, headers=headers)
    again = dead_letters.redriven(buried)
    assert again.value == value
    assert list(again.headers or ()) == [*headers, ("redriven-from", str(buried.id).encode())]


@pytest.mark.parametrize("headers", [[], [("message-id", b"no UUID")], [("ce_id", b"1")]])
@pytest.mark.parametrize("value", [b'{"no": "id"}', b'{"id": "%s"}' % OWN.encode()])
def test_one_without_id_gets_the_dead_letters_wherever_it_comes_to_lie(value: bytes, headers: Headers) -> None:
    buried = letter(value, headers=headers)
    again = dead_letters.redriven(buried)._replace(partition=1, offset=99, timestamp=1_800_000_000_000)
    assert uuid.UUID(bytes=message.decode(again).id) == buried.id


def test_what_cannot_be_decoded_gets_an_id_too_for_a_worker_that_can() -> None:
    buried = letter(b'{"specversion": not json')
    assert dict(dead_letters.redriven(buried).headers or ())["message-id"] == str(buried.id).encode()
