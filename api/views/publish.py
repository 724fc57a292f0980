"""POST /messages and POST /messages/batch: publish to Kafka, and respond once all in-sync replicas acknowledged."""

import hashlib
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from flask import Request, Response, g
from flask_openapi3 import APIBlueprint, Tag
from uuid_utils import uuid7

from api import auth, bodies, dispatch, requests, schemas
from api.deadlines import TooSlow
from api.postgresql import KEYS
from api.problems import Problem, bad_parameter, shape_of, too_large
from api.requests import Outgoing
from api.responses import json_response
from api.services import services
from api.wsgi import current_request
from bridge.kafka.publisher import Place
from tasks.config.settings import Settings
from tasks.errors import BackendError, BadRecord
from tasks.observability import events
from tasks.store import idempotency
from tasks.store.connection import TRANSIENT

blueprint = APIBlueprint(
    "publishing",
    __name__,
    url_prefix="/messages",
    abp_tags=[Tag(name="Publishing", description="Messages in")],
    abp_security=auth.SECURITY,
)
auth.needs(blueprint, "write")

_KEY_NAMESPACE = uuid.UUID("6f9b1d9e-6a57-5d0e-9f0b-0d5c1c7e6a03")  # of ids made from Idempotency-Keys
_LONGEST_KEY = 255
_ONE = ("application/json", requests.STRUCTURED)
_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl")


@blueprint.post("", responses={202: schemas.Accepted}, openapi_extensions=schemas.BODY)
def post() -> Response:
    """Accept a message: 202 once all in-sync replicas of Kafka have it.

    The body is a JSON object with fields of your own, or a CloudEvent, structured or binary.
    """
    own, request = services().settings, current_request()
    attributes = {
        name[8:].lower().replace("_", "-"): value for name, value in request.environ.items() if name[:8] == "HTTP_CE_"
    }
    kind = request.mimetype
    bodies.check_type(kind, _ONE if not attributes else (*_ONE, ""))
    value = bodies.read(request, own.max_body_bytes)
    with services().limits.publishing:
        new_id = _ids(request, value)
        topics, topic = own.kafka_topics, _topic(request)
        if attributes and kind != requests.STRUCTURED:
            message = requests.read_binary(value, attributes, topics, topic, lambda: new_id(None))
        else:
            message = requests.read(value, topics, topic, lambda: new_id(None), kind == requests.STRUCTURED)
        [outcome] = dispatch.publish([message])
    if isinstance(outcome, BackendError):
        raise outcome
    accepted = _accepted(message, outcome)
    events.emit("message.accepted", **accepted)
    return json_response(accepted, 202, f"/messages/{message.id}")


@blueprint.post(
    "/batch", responses={202: schemas.Batch, 207: schemas.Batch, 422: None}, openapi_extensions=schemas.BATCH
)
def post_batch() -> Response:
    """Accept many messages: 202 if Kafka has all, 207 if it has some, with a result for each item.

    The body is a JSON array, NDJSON, or a batch of CloudEvents. If an item is invalid, nothing is sent (422).
    """
    own, request = services().settings, current_request()
    kind = request.mimetype
    bodies.check_type(kind, ("application/json", requests.BATCHED, *_LINES))
    with services().limits.batches:
        body = bodies.read(request, own.max_batch_bytes)
        new_id = _ids(request, body)
        parts = requests.items(body, kind in _LINES, own.max_batch_items)
        event, topic = kind == requests.BATCHED, _topic(request)
        read = [_read_item(own, part, index, event, topic, new_id) for index, part in enumerate(parts)]
        for index, first in requests.conflicts(read).items():
            detail = f"Item {first} is a different message with the same id."
            read[index] = _item_problem(Problem(422, "id-conflict", "An id is taken", detail, pointer="/id"), index)
        messages = [message for message in read if isinstance(message, Outgoing)]
        if len(messages) < len(read):
            results = [schemas.item(index, one) for index, one in enumerate(read)]
            detail = f"{len(read) - len(messages)} of {len(read)} items are invalid; nothing was sent."
            raise Problem(422, "invalid-items", "Items are invalid", detail, items=results)
        return _send_all(messages)


def _read_item(
    own: Settings, part: bytes, index: int, event: bool, topic: str | None, new_id: Callable[[int | None], str]
) -> Outgoing | dict[str, Any]:
    try:
        if len(part) > own.max_body_bytes:
            raise too_large(f"It has {len(part)} bytes; at most {own.max_body_bytes} are allowed.")
        return requests.read(part, own.kafka_topics, topic, lambda: new_id(index), event)
    except (BadRecord, Problem) as error:
        return _item_problem(error, index)


def _item_problem(error: BadRecord | Problem, index: int) -> dict[str, Any]:
    problem = shape_of(error)
    problem["pointer"] = f"/{index}{problem.get('pointer', '')}"
    return problem


def _send_all(messages: Sequence[Outgoing]) -> Response:
    outcomes = dispatch.publish(messages)
    results = [
        _result(index, message, outcome)
        for index, (message, outcome) in enumerate(zip(messages, outcomes, strict=True))
    ]
    kept = sum(result["status"] == "accepted" for result in results)
    events.emit("messages.accepted", items=len(results), accepted=kept)
    if results and not kept:
        first = results[0]["problem"]
        unknown = next((r["problem"] for r in results if r["status"] == "unknown"), first)
        raise Problem(503, unknown["type"].rsplit("/")[-1], unknown["title"], unknown["detail"], items=results)
    return json_response({"accepted": kept, "items": results}, 202 if kept == len(results) else 207)


def _result(index: int, message: Outgoing, outcome: Place | BackendError) -> dict[str, Any]:
    if isinstance(outcome, BackendError):
        return schemas.item(index, shape_of(outcome), message.id)
    return {"index": index, "status": "accepted", **_accepted(message, outcome)}


def _accepted(message: Outgoing, place: Place) -> dict[str, Any]:
    return {"id": message.id, "topic": place.topic, "partition": place.partition, "offset": place.offset}


def _ids(request: Request, body: bytes) -> Callable[[int | None], str]:
    """The function that makes ids for messages without one: from the Idempotency-Key, or new. Raises Problem."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return lambda _: str(uuid7())
    if not 0 < len(key) <= _LONGEST_KEY:
        detail = f"Idempotency-Key has 1 to {_LONGEST_KEY} characters."
        raise bad_parameter("Idempotency-Key", detail)
    client: str = g.get("client", "")
    digest = hashlib.sha256(b"\0".join([request.full_path.encode(), request.mimetype.encode(), body])).digest()
    try:
        key_id = uuid.UUID(requests.key_id(_KEY_NAMESPACE, client, key))
        same = KEYS.ask(lambda: idempotency.remember(key_id, digest))
    except (*TRANSIENT, TooSlow, Problem):
        # Accepting needs no PostgreSQL. Another body with the same key is then found when it is stored:
        # the id exists, and the record becomes a dead letter, id_conflict.
        same = True
    if not same:
        detail = "This Idempotency-Key came with another body before; use a key for one request only."
        raise Problem(422, "key-reused", "The Idempotency-Key was used before", detail, parameter="Idempotency-Key")
    return lambda index: requests.key_id(_KEY_NAMESPACE, client, key, index)


def _topic(request: Request) -> str | None:
    # By hand, and described in schemas: the library builds a JSON schema for each request that it checks, 1 ms of CPU.
    if not request.query_string:
        return None
    parameters = request.args
    for name in parameters:
        if name != "topic":
            raise bad_parameter(name, f"There is no parameter {name}.")
    topic = parameters.get("topic")
    return None if topic is None else requests.known_topic(topic, services().settings.kafka_topics)
