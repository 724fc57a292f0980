"""What a request body is: the message to publish, or the reason why it cannot be one. Pure.

Three forms are taken: our own (a JSON object), and CloudEvents 1.0 in the structured and binary modes of its
HTTP protocol binding. They go to Kafka as the CloudEvents Kafka binding says, so that consumers of the topic
other than ours understand them.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
from uuid_utils import UUID

from api.problems import Problem
from tasks.envelope import ID_HEADER, Record, decode, parse, read_body
from tasks.errors import BadRecord

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
_REQUIRED = ("id", "source", "type")
_VALUES_IN_AN_ITEM = 100  # far more than usual; what has more in all is sent in smaller batches
_raws = msgspec.json.Decoder(list[msgspec.Raw])


class Outgoing(NamedTuple):
    """A message that can be stored, ready for Kafka."""

    id: str
    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


NewId = Callable[[], str]


def read(value: bytes, topics: Sequence[str], topic: str | None, new_id: NewId, event: bool = False) -> Outgoing:
    """The message in a JSON object; `event` says that it must be a structured CloudEvent.

    `topic` goes before the one in the body. `new_id` gives an id when the message brings none.
    Raises BadRecord or Problem.
    """
    fields = parse(value)
    if not isinstance(fields, dict):
        raise Problem(400, "not-an-object", "The body is no JSON object", "Send a JSON object; its fields are yours.")
    if event:
        _check_event(fields, lambda name: f"/{name}")
        headers = [("content-type", STRUCTURED.encode())]
        key = _string(fields, "partitionkey")
    else:
        _string(fields, "id")
        _string(fields, "type")
        headers = _headers(fields)
        key = _string(fields, "key")
    wanted = topic if topic is not None else _string(fields, "topic")
    return _outgoing(value, fields, key, headers, known_topic(wanted, topics), new_id)


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
    return _outgoing(value, parse(value), text.get("partitionkey"), headers, known_topic(topic, topics), new_id)


def items(body: bytes, lines: bool, most: int) -> list[bytes]:
    """The items of a batch as they were sent: a JSON array's, or one a line.

    Raises BadRecord when it is no array, and Problem when there are more than `most`.
    """
    # Counted first: the parts of a body that is all commas would take 40 times its memory.
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
        raise BadRecord("not_json", f"the body is no JSON array: {error}") from None


def key_id(namespace: uuid.UUID, client: str, key: str, index: int | None = None) -> str:
    """The id that an Idempotency-Key stands for: the same in every process, and after each restart."""
    # JSON, because any separator may be part of a key.
    return str(uuid.uuid5(namespace, msgspec.json.encode([client, key, index]).decode()))


def _outgoing(
    value: bytes, parsed: Any, key: str | None, headers: list[tuple[str, bytes]], topic: str, new_id: NewId
) -> Outgoing:
    raw_key = None if key is None else key.encode()
    # What the worker will do with it, so that whatever it would refuse is refused now.
    unplaced = Record(topic, 0, 0, 0, raw_key, value, headers)
    message = decode(unplaced, lambda _: b"", read_body(parsed))
    if message.id:
        return Outgoing(str(UUID(bytes=message.id)), topic, raw_key, value, headers)
    made = new_id()
    return Outgoing(made, topic, raw_key, value, [*headers, (ID_HEADER, made.encode())])


def _check_event(attributes: Mapping[str, Any], pointer: Callable[[str], str]) -> None:
    if attributes.get("specversion") != "1.0":
        detail = "specversion must be 1.0."
        raise Problem(400, "bad-event", "This is no CloudEvent", detail, pointer=pointer("specversion"))
    for name in _REQUIRED:
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            detail = f"A CloudEvent needs {name}, a string that is not empty."
            raise Problem(400, "bad-event", "This is no CloudEvent", detail, pointer=pointer(name))


def _string(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise Problem(400, "bad-field", f"{name} is no string", f"{name} must be a string.", pointer=f"/{name}")
    return value


def known_topic(wanted: str | None, topics: Sequence[str]) -> str:
    """The topic that is wanted, by default the first. Raises Problem when there is none of this name."""
    if wanted is None:
        return topics[0]
    if wanted not in topics:
        detail = f"There is no topic {wanted!r}; there are: {', '.join(topics)}."
        raise Problem(404, "unknown-topic", "Unknown topic", detail, pointer="/topic")
    return wanted


def _headers(fields: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    headers = fields.get("headers")
    if headers is None:
        return []
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        detail = "headers must map names to strings."
        raise Problem(400, "bad-field", "headers is no object of strings", detail, pointer="/headers")
    if ID_HEADER in headers:
        detail = f"The header {ID_HEADER} is ours; give the id in the field id."
        raise Problem(400, "bad-field", "A header's name is taken", detail, pointer=f"/headers/{ID_HEADER}")
    return [(name, value.encode()) for name, value in headers.items()]
