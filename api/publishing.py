"""POST /messages and POST /messages/batch put messages into Kafka, and answer when all in-sync replicas have them."""

import hashlib
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from flask import Response, g, request
from flask_openapi3 import APIBlueprint, Tag
from uuid_utils import uuid7

from api import access, incoming, limits, measuring, shapes
from api.answers import json_answer, settings
from api.incoming import Outgoing
from api.problems import Problem, bad_parameter, shape_of, too_large
from bridge.publisher import Place
from tasks import idempotency, telemetry
from tasks.database import TRANSIENT
from tasks.errors import BackendError, BadRecord

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
_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl")


@blueprint.post("", responses={202: shapes.Accepted}, openapi_extensions=shapes.BODY)
def post() -> Response:
    """Accept one message: 202 once Kafka keeps it on all in-sync replicas.

    The body is a JSON object with fields of your own, or a CloudEvent, structured or binary.
    """
    attributes = {
        name[8:].lower().replace("_", "-"): value for name, value in request.environ.items() if name[:8] == "HTTP_CE_"
    }
    event = request.mimetype == incoming.STRUCTURED
    _check_type(("application/json", incoming.STRUCTURED, *([""] if attributes else [])))
    own = settings()
    value = _body(own.max_body_bytes)
    limits.enter()
    new_id = _ids(value)
    topics, topic = own.kafka_topics, _topic()
    if attributes and not event:
        message = incoming.read_binary(value, attributes, topics, topic, lambda: new_id(None))
    else:
        message = incoming.read(value, topics, topic, lambda: new_id(None), event)
    place = measuring.send(message)()
    answer = _accepted(message, place)
    telemetry.emit("message.accepted", **answer)
    return json_answer(answer, 202, f"/messages/{message.id}")


@blueprint.post("/batch", responses={202: shapes.Batch, 207: shapes.Batch, 422: None}, openapi_extensions=shapes.BATCH)
def post_batch() -> Response:
    """Accept many messages: 202 when Kafka keeps all, 207 when it keeps some, with a result for each item.

    The body is a JSON array, NDJSON, or a batch of CloudEvents. When one item is invalid nothing is sent (422).
    """
    _check_type(("application/json", incoming.BATCHED, *_LINES))
    with limits.batch():
        body = _body(settings().max_batch_bytes)
        new_id = _ids(body)
        parts = incoming.items(body, request.mimetype in _LINES, settings().max_batch_items)
        topic = _topic()
        read = [_read_item(part, index, topic, new_id) for index, part in enumerate(parts)]
        messages = [message for message in read if isinstance(message, Outgoing)]
        if len(messages) < len(read):
            results = [shapes.item(index, one) for index, one in enumerate(read)]
            detail = f"{len(read) - len(messages)} of {len(read)} items are invalid; nothing was sent."
            raise Problem(422, "invalid-items", "Items are invalid", detail, items=results)
        return _send_all(messages)


def _read_item(
    part: bytes, index: int, topic: str | None, new_id: Callable[[int | None], str]
) -> Outgoing | dict[str, Any]:
    event = request.mimetype == incoming.BATCHED
    try:
        if len(part) > settings().max_body_bytes:
            raise too_large(f"It has {len(part)} bytes; at most {settings().max_body_bytes} are taken.")
        return incoming.read(part, settings().kafka_topics, topic, lambda: new_id(index), event)
    except (BadRecord, Problem) as error:
        problem = shape_of(error)
        problem["pointer"] = f"/{index}{problem.get('pointer', '')}"
        return problem


def _send_all(messages: Sequence[Outgoing]) -> Response:
    sent: list[Callable[[], Place] | BackendError] = []
    for message in messages:
        try:
            sent.append(measuring.send(message))
        except BackendError as error:
            sent.append(error)
    results = [_outcome(index, message, wait) for index, (message, wait) in enumerate(zip(messages, sent, strict=True))]
    kept = sum(result["status"] == "accepted" for result in results)
    telemetry.emit("batch.accepted", items=len(results), accepted=kept)
    if results and not kept:
        first = results[0]["problem"]
        unknown = next((r["problem"] for r in results if r["status"] == "unknown"), first)
        raise Problem(503, unknown["type"].rsplit("/")[-1], unknown["title"], unknown["detail"], items=results)
    return json_answer({"accepted": kept, "items": results}, 202 if kept == len(results) else 207)


def _outcome(index: int, message: Outgoing, sent: Callable[[], Place] | BackendError) -> dict[str, Any]:
    try:
        if isinstance(sent, BackendError):
            raise sent
        return {"index": index, "status": "accepted", **_accepted(message, sent())}
    except BackendError as error:
        return shapes.item(index, shape_of(error), message.id)


def _accepted(message: Outgoing, place: Place) -> dict[str, Any]:
    return {"id": message.id, "topic": place.topic, "partition": place.partition, "offset": place.offset}


def _ids(body: bytes) -> Callable[[int | None], str]:
    """How this request's messages without an id get one: from its Idempotency-Key, or new. Raises Problem."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return lambda _: str(uuid7())
    if not 0 < len(key) <= _LONGEST_KEY:
        detail = f"Idempotency-Key has 1 to {_LONGEST_KEY} characters."
        raise bad_parameter("Idempotency-Key", detail)
    client: str = g.get("client", "")
    digest = hashlib.sha256(b"\0".join([request.full_path.encode(), request.mimetype.encode(), body])).digest()
    try:
        same = idempotency.remember(uuid.UUID(incoming.key_id(_KEY_NAMESPACE, client, key)), digest)
    except TRANSIENT:
        # Accepting needs no PostgreSQL. Another body under the same key is then found when it is stored:
        # its id is taken, and it becomes a dead letter of reason id_conflict.
        same = True
    if not same:
        detail = "This Idempotency-Key came with another body before; use a key for one request only."
        raise Problem(422, "key-reused", "The Idempotency-Key is taken", detail, parameter="Idempotency-Key")
    return lambda index: incoming.key_id(_KEY_NAMESPACE, client, key, index)


def _topic() -> str | None:
    # By hand, and described in shapes: the library makes a JSON schema for each request it checks, 1 ms of CPU.
    given = request.args
    for name in given:
        if name != "topic":
            raise bad_parameter(name, f"There is no parameter {name}.")
    topic = given.get("topic")
    return None if topic is None else incoming.known_topic(topic, settings().kafka_topics)


def _check_type(taken: Sequence[str]) -> None:
    if request.mimetype not in taken:
        detail = f"Content-Type is one of {', '.join(filter(None, taken))}, not {request.mimetype or 'absent'}."
        raise Problem(415, "unsupported-media-type", "The content type is none that is taken", detail)


def _body(largest: int) -> bytes:
    if request.content_length is not None and request.content_length > largest:
        raise too_large(f"The body has {request.content_length} bytes; at most {largest} are taken.")
    request.max_content_length = largest
    return request.get_data(cache=False)
