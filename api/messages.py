"""POST /messages puts a message into Kafka; GET reads what is stored."""

import uuid
from datetime import datetime
from typing import Any

import orjson
from flask import Blueprint, Response, current_app, request
from uuid_utils import uuid7

from api.problems import Problem, too_large
from bridge.publisher import Publisher
from tasks import dead_letters, store, telemetry
from tasks.envelope import ID_HEADER, Record, decode, parse, uuid_bytes
from tasks.models import Message
from tasks.settings import Settings

blueprint = Blueprint("messages", __name__, url_prefix="/messages")

_PAGE = 50
_LARGEST_PAGE = 1000
_PARAMETERS = {"type", "key", "topic", "from", "to", "limit", "cursor"}


@blueprint.post("")
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
    place = _publisher().publish(topic, raw_key, value, headers)
    answer = {"id": message_id, "topic": place.topic, "partition": place.partition, "offset": place.offset}
    telemetry.emit("message.accepted", **answer)
    response = _json(answer, 202)
    response.headers["Location"] = f"/messages/{message_id}"
    return response


@blueprint.get("/<uuid:message_id>")
def get(message_id: uuid.UUID) -> Response:
    """One message by its id; 404 while it is not stored."""
    found = store.find(message_id)
    if found is not None:
        return _json(_shown(found))
    dead = dead_letters.find_unsolved(message_id)
    if dead is not None:
        detail = f"It is a dead letter: {dead.reason}, {dead.detail}"
        raise Problem(404, "dead-letter", "The message could not be stored", detail, reason=dead.reason)
    raise Problem(404, "not-found", "No such message", f"No message {message_id} is stored (yet).")


@blueprint.get("")
def get_page() -> Response:
    """A page of messages, newest first; `next` is the cursor of the page after it."""
    unknown = set(request.args) - _PARAMETERS
    if unknown:
        raise _bad_parameter(f"There is no parameter {', '.join(sorted(unknown))}.")
    limit = _limit()
    wanted = store.Filter(
        type=request.args.get("type"),
        key=request.args.get("key"),
        topic=request.args.get("topic"),
        since=_time("from"),
        until=_time("to"),
    )
    rows = store.page(wanted, _cursor(), limit)
    last = rows[-1] if len(rows) == limit else None
    return _json(
        {
            "messages": [_shown(row) for row in rows],
            "next": None if last is None else f"{last.stored_at.isoformat()}~{last.id}",
        }
    )


def _settings() -> Settings:
    settings: Settings = current_app.extensions["settings"]
    return settings


def _publisher() -> Publisher:
    publisher: Publisher = current_app.extensions["publisher"]
    return publisher


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value) + b"\n", status=status, content_type="application/json")


def _body() -> bytes:
    if request.mimetype != "application/json":
        raise Problem(
            415,
            "unsupported-media-type",
            "The content type is not application/json",
            f"Send the message with Content-Type: application/json, not {request.mimetype or 'none'}.",
        )
    largest = _settings().max_body_bytes
    if request.content_length is not None and request.content_length > largest:
        raise too_large(f"The body has {request.content_length} bytes; at most {largest} are taken.")
    return request.get_data(cache=False)


def _string(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise Problem(400, "bad-field", f"{name} is no string", f"{name} must be a string.", pointer=f"/{name}")
    return value


def _topic(fields: dict[str, Any]) -> str:
    topics = _settings().kafka_topics
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


def _limit() -> int:
    text = request.args.get("limit", str(_PAGE))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _LARGEST_PAGE:
        raise _bad_parameter(f"limit must be a whole number from 1 to {_LARGEST_PAGE}.")
    return int(text)


def _time(name: str) -> datetime | None:
    text = request.args.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a + in a URL is a space
    except ValueError:
        raise _bad_parameter(f"{name} must be a time as in 2026-01-31T12:00:00Z.") from None
    if moment.tzinfo is None:
        raise _bad_parameter(f"{name} needs a time zone, as in 2026-01-31T12:00:00Z.")
    return moment


def _cursor() -> tuple[datetime, uuid.UUID] | None:
    text = request.args.get("cursor")
    if text is None:
        return None
    moment, _, message_id = text.replace(" ", "+").partition("~")
    try:
        return datetime.fromisoformat(moment), uuid.UUID(message_id)
    except ValueError:
        raise _bad_parameter("cursor must be the next of an earlier page.") from None


def _bad_parameter(detail: str) -> Problem:
    return Problem(400, "bad-parameter", "A parameter is wrong", detail)


def _shown(row: Message) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "type": row.type,
        "key": row.key,
        "topic": row.topic,
        "partition": row.partition,
        "offset": row.offset,
        "produced_at": row.produced_at.isoformat(),
        "stored_at": row.stored_at.isoformat(),
        "headers": _fragment(row.headers),
        "payload": _fragment(row.payload),
    }


def _fragment(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)
