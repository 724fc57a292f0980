"""From a request body to messages that can be published, or to the reason why they cannot. Pure.

Three forms are accepted: a JSON object, and CloudEvents 1.0 in the structured and binary modes of its
HTTP protocol binding. They are sent to Kafka as the CloudEvents Kafka binding says, so that other consumers of
the topic understand them.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
from uuid_utils import UUID

from api.problems import Problem
from tasks.errors import BadRecord
from tasks.json_value import parse
from tasks.message import (
    ID_HEADER,
    Body,
    content,
    identify,
    read_body,
    sender_id,
    uuid_bytes,
)

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
_REQUIRED = ("id", "source", "type")
_VALUES_IN_AN_ITEM = 100  # far more than usual; a client with more sends smaller batches
_raws = msgspec.json.Decoder(list[msgspec.Raw])


class Outgoing(NamedTuple):
    """A valid message, ready for Kafka, with its id in a header."""

    id: str
    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


NewId = Callable[[], str]


def read(value: bytes, topics: Sequence[str], topic: str | None, new_id: NewId, event: bool = False) -> Outgoing:
    """The message in a JSON object; with `event` it must be a structured CloudEvent.

    `topic` takes precedence over the one in the body. `new_id` makes an id if the message has none.
    Raises BadRecord or Problem.
    """
    fields = parse(value)
    if not isinstance(fields, dict):
        raise Problem(
            400, "not-an-object", "The body is not a JSON object", "Send a JSON object; you choose its fields."
        )
    body = read_body(fields)
    if event:
        _check_event(fields, lambda name: f"/{name}")
        headers = [("content-type", STRUCTURED.encode())]
        key, given = _string(fields, "partitionkey"), body.event_id
    else:
        _string(fields, "type")
        headers = _headers(fields)
        key, own = _string(fields, "key"), _string(fields, "id")
        # The API defines the field `id`, but a CloudEvent has one id, in every mode.
        given = body.event_id or (own and uuid_bytes(own)) or sender_id(headers, body)
    name = topic if topic is not None else _string(fields, "topic")
    return _outgoing(value, body, key, headers, known_topic(name, topics), given, new_id)


def read_binary(
    value: bytes, attributes: Mapping[str, str], topics: Sequence[str], topic: str | None, new_id: NewId
) -> Outgoing:
    """The message of a CloudEvent in binary mode: `attributes` by the names of their HTTP headers, without `ce-`.

    An event without data carries the JSON value null. Raises BadRecord or Problem.
    """
    text = {name: unquote(raw) for name, raw in attributes.items()}
    _check_event(text, lambda name: f"ce-{name}")
    headers = [(f"ce_{name}", said.encode()) for name, said in text.items()]
    headers.append(("content-type", b"application/json"))
    value = value or b"null"
    body = read_body(parse(value))
    given = sender_id(headers, body)
    return _outgoing(value, body, text.get("partitionkey"), headers, known_topic(topic, topics), given, new_id)


def items(body: bytes, lines: bool, most: int) -> list[bytes]:
    """The items of a batch as they were sent: those of a JSON array, or one a line.

    Raises BadRecord if it is not an array, and Problem if there are more than `most`.
    """
    # Counted first: the parts of a body of commas would take 40 times its memory.
    if body.count(b"\n" if lines else b",") > most * _VALUES_IN_AN_ITEM:
        raise too_many(most)
    parts = [line for line in body.splitlines() if line.strip()] if lines else _slices(body)
    if len(parts) > most:
        raise too_many(most)
    return parts


def too_many(most: int) -> Problem:
    """The batch has more items than allowed."""
    return Problem(413, "too-large", "The batch is too large", f"A batch has at most {most} items.")


def _slices(body: bytes) -> list[bytes]:
    try:
        return [bytes(raw) for raw in _raws.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord("not_json", f"the body is not a JSON array: {error}") from None


def conflicts(items: Sequence[object]) -> dict[int, int]:
    """The messages with the id of an earlier, different one: their index, and that of the earlier one.

    Only one of the two could be stored. A repeated message is sent, and stored once.
    """
    first: dict[tuple[str, str], tuple[int, Outgoing]] = {}
    contents: dict[int, Any] = {}  # of the earlier messages: one may be large, and compared many times
    found: dict[int, int] = {}
    for index, item in enumerate(items):
        if not isinstance(item, Outgoing):
            continue
        known, earlier = first.setdefault((item.topic, item.id), (index, item))
        if known == index:
            continue
        if known not in contents:
            contents[known] = content(earlier.key, earlier.headers, parse(earlier.value))
        if content(item.key, item.headers, parse(item.value)) != contents[known]:
            found[index] = known
    return found


def key_id(namespace: uuid.UUID, client: str, key: str, index: int | None = None) -> str:
    """The id of an Idempotency-Key: the same in every process, and after a restart."""
    # JSON, because any separator may be part of a key.
    return str(uuid.uuid5(namespace, msgspec.json.encode([client, key, index]).decode()))


def _outgoing(
    value: bytes,
    body: Body,
    key: str | None,
    headers: list[tuple[str, bytes]],
    topic: str,
    given: bytes | None,
    new_id: NewId,
) -> Outgoing:
    raw_key = None if key is None else key.encode()
    message_id = str(UUID(bytes=given)) if given else new_id()
    headers = [*headers, (ID_HEADER, message_id.encode())]
    identify(raw_key, headers, body)  # the worker does the same: whatever it would reject is rejected now
    return Outgoing(message_id, topic, raw_key, value, headers)


def _check_event(attributes: Mapping[str, Any], pointer: Callable[[str], str]) -> None:
    if attributes.get("specversion") != "1.0":
        detail = "specversion must be 1.0."
        raise Problem(400, "bad-event", "This is not a CloudEvent", detail, pointer=pointer("specversion"))
    for name in _REQUIRED:
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            detail = f"A CloudEvent needs {name}, a string that is not empty."
            raise Problem(400, "bad-event", "This is not a CloudEvent", detail, pointer=pointer(name))


def _string(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise Problem(400, "bad-field", f"{name} is not a string", f"{name} must be a string.", pointer=f"/{name}")
    return value


def known_topic(name: str | None, topics: Sequence[str]) -> str:
    """The topic with this name, by default the first. Raises Problem if there is none."""
    if name is None:
        return topics[0]
    if name not in topics:
        detail = f"There is no topic {name!r}; there are: {', '.join(topics)}."
        raise Problem(404, "unknown-topic", "Unknown topic", detail, pointer="/topic")
    return name


def _headers(fields: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    headers = fields.get("headers")
    if headers is None:
        return []
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        detail = "headers must map names to strings."
        raise Problem(400, "bad-field", "headers is not an object of strings", detail, pointer="/headers")
    if ID_HEADER in headers:
        detail = f"The header {ID_HEADER} is reserved; send the id in the field id."
        raise Problem(400, "bad-field", "The name of a header is reserved", detail, pointer=f"/headers/{ID_HEADER}")
    return [(name, value.encode()) for name, value in headers.items()]
