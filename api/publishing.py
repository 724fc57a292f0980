"""POST /messages and POST /messages/batch put messages into Kafka, and answer when all in-sync replicas have them."""

import hashlib
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from flask import Request, Response, g, request
from flask_openapi3 import APIBlueprint, Tag
from uuid_utils import uuid7

from api import access, bodies, incoming, limits, measuring, shapes
from api.answers import json_answer, settings
from api.deadlines import TooSlow
from api.incoming import Outgoing
from api.postgresql import KEYS
from api.problems import Problem, bad_parameter, shape_of, too_large
from bridge.publisher import Place
from tasks import idempotency, telemetry
from tasks.database import TRANSIENT
from tasks.errors import BackendError, BadRecord
from tasks.settings import Settings

blueprint = APIBlueprint(
    "publishing",
    __name__,
    url_prefix="/messages",
    abp_tags=[Tag(name="Publishing", description="Messages in")],
    abp_security=access.SECURITY,
)
access.needs(blueprint, "write")

_KEY_NAMESPACE = uuid.UUID("6f9b1d9e-6a57-5d0e-9f0b-0d5c1c7e6a03")  # of ids made from Idempotency-Keys
_LONGEST_KEY = 255
_ONE = ("application/json", incoming.STRUCTURED)
_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl")


@blueprint.post("", responses={202: shapes.Accepted}, openapi_extensions=shapes.BODY)
def post() -> Response:
    """Accept one message: 202 once Kafka keeps it on all in-sync replicas.

    The body is a JSON object with fields of your own, or a CloudEvent, structured or binary.
    """
    own, asked = settings(), _asked()
    attributes = {
        name[8:].lower().replace("_", "-"): value for name, value in asked.environ.items() if name[:8] == "HTTP_CE_"
    }
    kind = asked.mimetype
    _check_type(kind, _ONE if not attributes else (*_ONE, ""))
    value = bodies.read(asked, own.max_body_bytes)
    with limits.room():
        new_id = _ids(asked, value)
        topics, topic = own.kafka_topics, _topic(asked)
        if attributes and kind != incoming.STRUCTURED:
            message = incoming.read_binary(value, attributes, topics, topic, lambda: new_id(None))
        else:
            message = incoming.read(value, topics, topic, lambda: new_id(None), kind == incoming.STRUCTURED)
        [outcome] = measuring.publish([message])
    if isinstance(outcome, BackendError):
        raise outcome
    answer = _accepted(message, outcome)
    telemetry.emit("message.accepted", **answer)
    return json_answer(answer, 202, f"/messages/{message.id}")


@blueprint.post("/batch", responses={202: shapes.Batch, 207: shapes.Batch, 422: None}, openapi_extensions=shapes.BATCH)
def post_batch() -> Response:
    """Accept many messages: 202 when Kafka keeps all, 207 when it keeps some, with a result for each item.

    The body is a JSON array, NDJSON, or a batch of CloudEvents. When one item is invalid nothing is sent (422).
    """
    own, asked = settings(), _asked()
    kind = asked.mimetype
    _check_type(kind, ("application/json", incoming.BATCHED, *_LINES))
    with limits.batches():
        body = bodies.read(asked, own.max_batch_bytes)
        new_id = _ids(asked, body)
        parts = incoming.items(body, kind in _LINES, own.max_batch_items)
        event, topic = kind == incoming.BATCHED, _topic(asked)
        read = [_read_item(own, part, index, event, topic, new_id) for index, part in enumerate(parts)]
        for index, first in incoming.conflicts(read).items():
            detail = f"Item {first} is a different message with the same id."
            read[index] = _item_problem(Problem(422, "id-conflict", "An id is taken", detail, pointer="/id"), index)
        messages = [message for message in read if isinstance(message, Outgoing)]
        if len(messages) < len(read):
            results = [shapes.item(index, one) for index, one in enumerate(read)]
            detail = f"{len(read) - len(messages)} of {len(read)} items are invalid; nothing was sent."
            raise Problem(422, "invalid-items", "Items are invalid", detail, items=results)
        return _send_all(messages)


def _read_item(
    own: Settings, part: bytes, index: int, event: bool, topic: str | None, new_id: Callable[[int | None], str]
) -> Outgoing | dict[str, Any]:
    try:
        if len(part) > own.max_body_bytes:
            raise too_large(f"It has {len(part)} bytes; at most {own.max_body_bytes} are taken.")
        return incoming.read(part, own.kafka_topics, topic, lambda: new_id(index), event)
    except (BadRecord, Problem) as error:
        return _item_problem(error, index)


def _item_problem(error: BadRecord | Problem, index: int) -> dict[str, Any]:
    problem = shape_of(error)
    problem["pointer"] = f"/{index}{problem.get('pointer', '')}"
    return problem


def _send_all(messages: Sequence[Outgoing]) -> Response:
    outcomes = measuring.publish(messages)
    results = [
        _result(index, message, outcome)
        for index, (message, outcome) in enumerate(zip(messages, outcomes, strict=True))
    ]
    kept = sum(result["status"] == "accepted" for result in results)
    telemetry.emit("batch.accepted", items=len(results), accepted=kept)
    if results and not kept:
        first = results[0]["problem"]
        unknown = next((r["problem"] for r in results if r["status"] == "unknown"), first)
        raise Problem(503, unknown["type"].rsplit("/")[-1], unknown["title"], unknown["detail"], items=results)
    return json_answer({"accepted": kept, "items": results}, 202 if kept == len(results) else 207)


def _result(index: int, message: Outgoing, outcome: Place | BackendError) -> dict[str, Any]:
    if isinstance(outcome, BackendError):
        return shapes.item(index, shape_of(outcome), message.id)
    return {"index": index, "status": "accepted", **_accepted(message, outcome)}


def _accepted(message: Outgoing, place: Place) -> dict[str, Any]:
    return {"id": message.id, "topic": place.topic, "partition": place.partition, "offset": place.offset}


def _asked() -> Request:
    """This request itself: a view that looks at it ten times pays for Flask's stand-in ten times."""
    found: Request = request._get_current_object()  # type: ignore[attr-defined]
    return found


def _ids(asked: Request, body: bytes) -> Callable[[int | None], str]:
    """How this request's messages without an id get one: from its Idempotency-Key, or new. Raises Problem."""
    key = asked.headers.get("Idempotency-Key")
    if key is None:
        return lambda _: str(uuid7())
    if not 0 < len(key) <= _LONGEST_KEY:
        detail = f"Idempotency-Key has 1 to {_LONGEST_KEY} characters."
        raise bad_parameter("Idempotency-Key", detail)
    client: str = g.get("client", "")
    digest = hashlib.sha256(b"\0".join([asked.full_path.encode(), asked.mimetype.encode(), body])).digest()
    try:
        key_id = uuid.UUID(incoming.key_id(_KEY_NAMESPACE, client, key))
        same = KEYS.ask(lambda: idempotency.remember(key_id, digest))
    except (*TRANSIENT, TooSlow, Problem):
        # Accepting needs no PostgreSQL. Another body under the same key is then found when it is stored:
        # its id is taken, and it becomes a dead letter of reason id_conflict.
        same = True
    if not same:
        detail = "This Idempotency-Key came with another body before; use a key for one request only."
        raise Problem(422, "key-reused", "The Idempotency-Key is taken", detail, parameter="Idempotency-Key")
    return lambda index: incoming.key_id(_KEY_NAMESPACE, client, key, index)


def _topic(asked: Request) -> str | None:
    # By hand, and described in shapes: the library makes a JSON schema for each request it checks, 1 ms of CPU.
    if not asked.query_string:
        return None
    given = asked.args
    for name in given:
        if name != "topic":
            raise bad_parameter(name, f"There is no parameter {name}.")
    topic = given.get("topic")
    return None if topic is None else incoming.known_topic(topic, settings().kafka_topics)


def _check_type(kind: str, taken: Sequence[str]) -> None:
    if kind not in taken:
        detail = f"Content-Type is one of {', '.join(filter(None, taken))}, not {kind or 'absent'}."
        raise Problem(415, "unsupported-media-type", "The content type is none that is taken", detail)
