"""POST /messages puts a message into Kafka."""

from typing import Any

from flask import Response, request
from flask_openapi3 import APIBlueprint, Tag
from uuid_utils import uuid7

from api import access, shapes
from api.answers import json_answer, publisher, settings
from api.problems import Problem, too_large
from tasks import telemetry
from tasks.envelope import ID_HEADER, Record, decode, parse, uuid_bytes

blueprint = APIBlueprint(
    "publishing",
    __name__,
    url_prefix="/messages",
    abp_tags=[Tag(name="Publishing", description="Messages in")],
    abp_security=access.SECURITY,
)
access.needs(blueprint, "write")


@blueprint.post("", responses={202: shapes.Accepted})
def post() -> Response:
    """Accept one message: 202 once Kafka keeps it on all in-sync replicas."""
    value = _body()
    fields = parse(value)
    if not isinstance(fields, dict):
        raise Problem(400, "not-an-object", "The body is no JSON object", "Send a JSON object; its fields are yours.")
    topic = _topic(fields)
    key = _string(fields, "key")
    headers = _headers(fields)
    message_id = _string(fields, "id")
    _string(fields, "type")
    known = message_id is not None and uuid_bytes(message_id) is not None
    if not known:
        message_id = str(uuid7())
        headers.append((ID_HEADER, message_id.encode()))
    raw_key = None if key is None else key.encode()
    # What the worker will do with it, so that whatever it would refuse is refused now.
    decode(Record(topic, 0, 0, 0, raw_key, value, headers))
    place = publisher().publish(topic, raw_key, value, headers)
    answer = {"id": message_id, "topic": place.topic, "partition": place.partition, "offset": place.offset}
    telemetry.emit("message.accepted", **answer)
    response = json_answer(answer, 202)
    response.headers["Location"] = f"/messages/{message_id}"
    return response


def _body() -> bytes:
    if request.mimetype != "application/json":
        raise Problem(
            415,
            "unsupported-media-type",
            "The content type is not application/json",
            f"Send the message with Content-Type: application/json, not {request.mimetype or 'none'}.",
        )
    largest = settings().max_body_bytes
    if request.content_length is not None and request.content_length > largest:
        raise too_large(f"The body has {request.content_length} bytes; at most {largest} are taken.")
    return request.get_data(cache=False)


def _string(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise Problem(400, "bad-field", f"{name} is no string", f"{name} must be a string.", pointer=f"/{name}")
    return value


def _topic(fields: dict[str, Any]) -> str:
    topics = settings().kafka_topics
    topic = _string(fields, "topic")
    if topic is None:
        return topics[0]
    if topic not in topics:
        detail = f"There is no topic {topic!r}; there are: {', '.join(topics)}."
        raise Problem(404, "unknown-topic", "Unknown topic", detail, pointer="/topic")
    return topic


def _headers(fields: dict[str, Any]) -> list[tuple[str, bytes]]:
    headers = fields.get("headers")
    if headers is None:
        return []
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise Problem(
            400,
            "bad-field",
            "headers is no object of strings",
            "headers must map names to strings.",
            pointer="/headers",
        )
    if ID_HEADER in headers:
        detail = f"The header {ID_HEADER} is ours; give the id in the field id."
        raise Problem(400, "bad-field", "A header's name is taken", detail, pointer=f"/headers/{ID_HEADER}")
    return [(name, value.encode()) for name, value in headers.items()]
