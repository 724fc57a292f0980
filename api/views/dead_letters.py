"""Dead letters over HTTP: list, show, redrive, discard; and release quarantined partitions."""

import uuid
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict, Field

from api import auth, bodies, slots, streams
from api.pagination import Paged, cursor
from api.params import Moment
from api.postgresql import OPERATING
from api.problems import Problem
from api.requests import known_topic
from api.responses import json_response
from api.services import services
from bridge.redrive import Batch, redrive
from tasks.store import bridge_status, dead_letters
from tasks.store.dead_letters import Selection
from tasks.store.message_rows import SHOWN_BYTES
from tasks.store.models import DeadLetter
from tasks.store.rows import Keyset

blueprint = APIBlueprint(
    "dead_letters",
    __name__,
    abp_tags=[Tag(name="Operating", description="Dead letters and quarantined partitions")],
    abp_security=auth.SECURITY,
)
auth.needs(blueprint, "operate")
bodies.bound(blueprint)
slots.limit(blueprint, "operating")

_ANSWER: dict[str | int | HTTPStatus, Any] = {200: {"description": "the result", "content": {"application/json": {}}}}


class DeadLetterQuery(Paged):
    """Filters, and a page; a dead letter must match all filters that are set."""

    topic: str | None = Field(None, description="of this topic")
    reason: str | None = Field(None, description="with this reason")
    state: str | None = Field("waiting", pattern="^(waiting|redriven|discarded|any)$", description="or any")
    since: Moment | None = Field(None, alias="from", description="dead at this time or later")
    until: Moment | None = Field(None, alias="to", description="dead before this time")


class DeadLetterPath(BaseModel):
    """A dead letter's id."""

    letter_id: uuid.UUID


class TopicPath(BaseModel):
    """A topic's name."""

    topic: str


class RedriveBody(BaseModel):
    """The waiting dead letters to redrive: those that match every field, oldest first."""

    model_config = ConfigDict(extra="forbid")

    topic: str | None = None
    reason: str | None = None
    limit: int = Field(1000, ge=1, le=10_000, description="most at once")


class DiscardBody(BaseModel):
    """Why the record is not needed."""

    model_config = ConfigDict(extra="forbid")

    note: str = Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")


@blueprint.get("/dead-letters", responses=_ANSWER)
def get_page(query: DeadLetterQuery) -> Response:
    """A page of dead letters without their bytes, newest first; `next` is the cursor of the page after it."""
    state = None if query.state == "any" else query.state
    selection = Selection(topic=query.topic, reason=query.reason, state=state, since=query.since, until=query.until)
    with OPERATING.transaction():
        letters = dead_letters.page(selection, query.limit, query.after())
    last = letters[-1] if len(letters) == query.limit else None
    return json_response(
        {
            "dead_letters": [dead_letters.fields(letter) for letter in letters],
            "next": None if last is None else cursor(Keyset(last.dead_at, last.id)),
        }
    )


@blueprint.get("/dead-letters/<uuid:letter_id>", responses=_ANSWER)
def get(path: DeadLetterPath) -> Response:
    """A dead letter with its record as Kafka delivered it: bytes as base64, and as text if they are text.

    A record of more than 2 MB is not shown; `too_large` has its size and the path that streams its value.
    """
    with OPERATING.transaction():
        letter = _found(path.letter_id)
        size = dead_letters.size(path.letter_id)
        if size > SHOWN_BYTES:
            large = {"bytes": size, "url": f"/dead-letters/{letter.id}/value"}
            return json_response({**dead_letters.fields(letter), "too_large": large})
        letter = _found(path.letter_id, dead_letters.find)
    record = dead_letters.record_of(letter)
    headers = [[name, *_bytes(value).values()] for name, value in record.headers or ()]
    shown = {**dead_letters.fields(letter), "headers": headers}
    for name, raw in (("key", record.key), ("value", record.value)):
        shown |= {f"{name}_{kind}": value for kind, value in _bytes(raw).items()}
    return json_response(shown)


@blueprint.get(
    "/dead-letters/<uuid:letter_id>/value",
    responses={200: {"description": "the value", "content": {"application/octet-stream": {}}}},
)
def get_value(path: DeadLetterPath) -> Response:
    """Stream the value of a dead letter as Kafka delivered it, however large it is."""
    with OPERATING.transaction():
        _found(path.letter_id)
    pieces = streams.read(dead_letters.value(path.letter_id), OPERATING)
    return Response(streams.parts(pieces), content_type="application/octet-stream")


@blueprint.post("/dead-letters/<uuid:letter_id>/redrive", responses=_ANSWER)
def redrive_one(path: DeadLetterPath) -> Response:
    """Produce the record again; it is then stored, or becomes a new dead letter."""
    with OPERATING.statements():
        _waiting(path.letter_id)
        done = _redriven(Selection(ids=(path.letter_id,)), 1)
    if done.failed:
        raise next(iter(done.failed.values()))
    if not done.redriven:  # another operator is handling it
        raise _handled(path.letter_id, "being handled")
    return json_response({"redriven": 1})


@blueprint.post("/dead-letters/redrive", responses=_ANSWER)
def redrive_some(body: RedriveBody) -> Response:
    """Produce the records of waiting dead letters again, oldest first; the response lists failures."""
    # Only those that are dead now: one that becomes a dead letter again must not be redriven again.
    selection = Selection(topic=body.topic, reason=body.reason, until=datetime.now(UTC))
    with OPERATING.statements():
        done = _redriven(selection, body.limit)
    failed = {str(letter_id): str(error) for letter_id, error in done.failed.items()}
    return json_response({"redriven": len(done.redriven), "failed": failed})


@blueprint.post("/dead-letters/<uuid:letter_id>/discard", responses=_ANSWER)
def discard(path: DeadLetterPath, body: DiscardBody) -> Response:
    """Mark the dead letter as discarded, with a note. It is kept."""
    with OPERATING.transaction():
        _waiting(path.letter_id)
        discarded = sum(dead_letters.discard(Selection(ids=(path.letter_id,)), body.note))
    if not discarded:
        raise _handled(path.letter_id, "being handled")
    return json_response({"discarded": 1})


@blueprint.post("/topics/<topic>/release", responses=_ANSWER)
def release(path: TopicPath) -> Response:
    """Release the quarantined partitions of a topic; the bridges read them again within seconds."""
    topic = known_topic(path.topic, services().settings.consumed_topics)
    with OPERATING.transaction():
        released = bridge_status.release(topic)
    return json_response({"released": released})


def _redriven(selection: Selection, most: int) -> Batch:
    done = Batch([], {})
    for batch in redrive(services().publisher, selection, most):
        done.redriven.extend(batch.redriven)
        done.failed.update(batch.failed)
    return done


def _found(
    letter_id: uuid.UUID, find: Callable[[uuid.UUID], DeadLetter | None] = dead_letters.find_without_bytes
) -> DeadLetter:
    letter = find(letter_id)
    if letter is None:
        raise Problem(404, "not-found", "No such dead letter", f"There is no dead letter {letter_id}.")
    return letter


def _waiting(letter_id: uuid.UUID) -> None:
    state = _found(letter_id).state
    if state != "waiting":
        raise _handled(letter_id, f"{state} already")


def _handled(letter_id: uuid.UUID, how: str) -> Problem:
    return Problem(409, "already-handled", "The dead letter does not wait", f"{letter_id} is {how}.")


def _bytes(raw: bytes | None) -> dict[str, str | None]:
    try:
        text = None if raw is None else raw.decode()
    except UnicodeDecodeError:
        text = None
    return {"base64": None if raw is None else b64encode(raw).decode(), "text": text}
