"""Which message a record holds: ids, types, CloudEvents, and everything that can never be stored."""

import uuid

import orjson
import pytest
from cloudevents.v1.conversion import to_structured
from cloudevents.v1.http import CloudEvent
from cloudevents.v1.kafka import KafkaMessage, to_binary
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import BadRecord
from tasks.json_value import parse
from tasks.message import Headers, Message, Record, decode, record_id, text_of, uuid_bytes

ONE = uuid.UUID("00000000-0000-4000-8000-000000000001")
TWO = uuid.UUID("00000000-0000-4000-8000-000000000002")


def record(value: bytes | None, key: bytes | None = None, headers: Headers = ()) -> Record:
    return Record("orders", 3, 42, 1_700_000_000_000, key, value, headers)


def decoded(value: bytes | None, key: bytes | None = None, headers: Headers = ()) -> Message:
    return decode(record(value, key, headers))


def test_the_payload_is_kept_as_it_was_sent() -> None:
    value = b'{"b": 1.10,  "a": 1, "a": 2}'
    assert decoded(value).payload == value


EVENT = (("ce_source", b"/s"), ("ce_id", b"7"))
STRUCTURED = orjson.dumps({"specversion": "1.0", "source": "/s", "id": "7"})


def own(name: str, value: object) -> tuple[str, bytes]:
    return name, str(value).encode()


@pytest.mark.parametrize("text", [str(ONE), str(ONE).upper()])
@pytest.mark.parametrize("more", [(), EVENT, (own("message-id", "no uuid"),), (own("message-id", ""),)])
@pytest.mark.parametrize("name", ["id", "message-id"])
def test_a_uuid_in_either_header_is_the_id(name: str, text: str, more: Headers) -> None:
    headers = [*more, own(name, text)]
    assert decoded(STRUCTURED, headers=headers).id == ONE.bytes


def test_our_own_header_goes_before_that_of_an_outbox() -> None:
    assert decoded(b"1", headers=[own("message-id", ONE), own("id", TWO)]).id == ONE.bytes


def test_what_is_no_uuid_hides_no_other_source() -> None:
    event_id = decoded(STRUCTURED).id
    hiding = [("message-id", b"constant"), ("id", b"\xff"), ("ce_id", None)]
    assert decoded(STRUCTURED, headers=hiding).id == event_id
    assert decoded(b"1", headers=[*hiding, *EVENT]).id == event_id
    assert decoded(b"1", headers=hiding).id == record_id(record(b"1"))


@pytest.mark.parametrize("given", ["7", 7, None, str(ONE), "{" + str(ONE) + "}", ONE.hex, ["x"]])
@pytest.mark.parametrize("more", [{}, {"source": "/s"}, {"specversion": "1.0"}, {"specversion": "1.0", "source": 1}])
def test_a_field_id_is_data(given: object, more: dict[str, object]) -> None:
    value = orjson.dumps({"id": given, **more})
    assert decoded(value).id == record_id(record(value))
    assert decoded(value, headers=[own("ce_id", ONE)]).id == record_id(record(value)), "an id without its source"


def test_the_same_cloudevent_has_one_id_in_both_modes() -> None:
    event = CloudEvent(
        {"type": "order.created", "source": "/shop", "id": "a-1", "datacontenttype": "application/json"}, {"n": 1}
    )
    _, structured = to_structured(event)
    binary: KafkaMessage = to_binary(event, data_marshaller=orjson.dumps, key_mapper=lambda _: None)
    from_body = decoded(structured)
    from_headers = decoded(binary.value, headers=list(binary.headers.items()))
    assert from_body.id == from_headers.id != record_id(record(structured))
    assert from_body.type == from_headers.type == "order.created"


def test_source_and_id_are_told_apart() -> None:
    split = [("a", "b-c"), ("a-b", "c"), ("a", "b"), ("b", "a")]
    ids = {decoded(orjson.dumps({"specversion": "1.0", "source": s, "id": i})).id for s, i in split}
    assert len(ids) == len(split)


def test_a_record_id_depends_on_every_part_of_its_place() -> None:
    base = record(None)
    others = [
        base._replace(topic="payments"),
        base._replace(partition=4),
        base._replace(offset=43),
        base._replace(timestamp=1),
    ]
    assert len({record_id(one) for one in [base, *others]}) == 5
    assert record_id(base) == record_id(record(b"another value"))


@given(st.integers(0, 2**63), st.lists(st.integers(-1, 2**63 - 1), min_size=2, max_size=2, unique=True).map(sorted))
def test_record_ids_are_in_the_order_of_their_timestamps(offset: int, timestamps: list[int]) -> None:
    earlier, later = (
        uuid.UUID(bytes=record_id(record(None)._replace(offset=offset, timestamp=timestamp)))
        for timestamp in timestamps
    )
    assert (earlier.version, earlier.variant) == (8, uuid.RFC_4122)
    assert earlier != later
    assert earlier.int >> 80 <= later.int >> 80 == min(timestamps[1], 2**48 - 1)


@pytest.mark.parametrize("value", [b"null", b"1", b'"x"', b"[1]", b"{}", b'{"type": 3, "id": null}'])
def test_any_json_is_a_message(value: bytes) -> None:
    assert (decoded(value).payload, decoded(value).type) == (value, None)


def test_a_tombstone_is_a_message_without_payload() -> None:
    assert decoded(None, key=b"k") == Message(
        record_id(record(None)), 42, 1_700_000_000_000, None, "k", None, None, False
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"{} {}", "not_json"),
        (b'{"n": NaN}', "not_json"),
        (b'{"n": 1e400}', "not_json"),
        (b'{"s": "\\ud800"}', "not_json"),
        (b"[" * 2000 + b"]" * 2000, "not_json"),
        (b'{"s": "\xff"}', "invalid_utf8"),
        (b'{"s": "a\\u0000"}', "nul"),
        (b'{"\\u0000": 1}', "nul"),
        (b'[[{"s": ["\\u0000"]}]]', "nul"),
    ],
)
def test_what_can_never_be_stored_has_a_reason(value: bytes, reason: str) -> None:
    with pytest.raises(BadRecord) as caught:
        decoded(value)
    assert caught.value.reason == reason
    assert caught.value.detail


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert parse(b'"\\\\u0000"') == "\\u0000"


@pytest.mark.parametrize(("raw", "text"), [(b"abc", "abc"), (b"\xff\x00", "\\xff00"), (b"a\0", "\\x6100"), (b"", "")])
def test_bytes_become_text_that_postgresql_takes(raw: bytes, text: str) -> None:
    assert text_of(raw) == text


def test_headers_keep_every_value_of_a_name() -> None:
    headers = decoded(b"1", headers=[("a", b"1"), ("b", None), ("a", b"2"), ("a", b"3"), ("n\0", b"x")]).headers
    assert headers is not None
    assert orjson.loads(headers) == {"a": ["1", "2", "3"], "b": None, "n\\x00": "x"}


@given(st.uuids())
def test_every_uuid_is_read_as_the_standard_library_reads_it(made: uuid.UUID) -> None:
    assert uuid_bytes(str(made)) == made.bytes


@given(st.text(max_size=40))
def test_no_text_is_taken_for_another_uuid(text: str) -> None:
    read = uuid_bytes(text)
    assert read is None or uuid.UUID(text).bytes == read


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_bad_record(value: bytes) -> None:
    try:
        assert decoded(value, key=value, headers=[("h", value)]).payload == value
    except BadRecord as bad:
        assert bad.reason in ("not_json", "invalid_utf8", "nul")


def test_headers_that_the_client_could_not_return_are_a_bad_header() -> None:
    record = Record("orders", 0, 1, 1_700_000_000_000, None, b"{}", None)
    with pytest.raises(BadRecord, match="bad_header"):
        decode(record)
