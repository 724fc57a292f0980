"""Dead letters over HTTP: seen with their bytes, produced again, discarded; and stopped partitions let go on."""

import uuid
from base64 import b64encode
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict, Field

from api import access, bodies, limits
from api.answers import json_answer, publisher, settings
from api.incoming import known_topic
from api.moments import Moment
from api.pages import Paged, cursor
from api.postgresql import OPERATING
from api.problems import Problem
from bridge.redrive import Batch, redrive
from tasks import bridges, dead_letters
from tasks.dead_letters import Selection
from tasks.models import DeadLetter

blueprint = APIBlueprint(
    "dead_letters",
    __name__,
    abp_tags=[Tag(name="Operating", description="Dead letters and stopped partitions")],
    abp_security=access.SECURITY,
)
access.needs(blueprint, "operate")
bodies.bound(blueprint)
limits.bound(blueprint, "operating")

_ANSWER: dict[str | int | HTTPStatus, Any] = {
    200: {"description": "what was found or done", "content": {"application/json": {}}}
}


class Wanted(Paged):
    """Which dead letters, all that match every parameter given, and which page of them."""

    topic: str | None = Field(None, description="of this topic")
    reason: str | None = Field(None, description="with this reason")
    state: str | None = Field("waiting", pattern="^(waiting|redriven|discarded|any)$", description="or any")
    since: Moment | None = Field(None, alias="from", description="dead at this time or later")
    until: Moment | None = Field(None, alias="to", description="dead before this time")


class One(BaseModel):
    """A dead letter's id."""

    letter_id: uuid.UUID


class Named(BaseModel):
    """A topic's name."""

    topic: str


class Some(BaseModel):
    """Which waiting dead letters to produce again: all that match every field, the oldest first."""

    model_config = ConfigDict(extra="forbid")

    topic: str | None = None
    reason: str | None = None
    limit: int = Field(1000, ge=1, le=10_000, description="most at once")


class Note(BaseModel):
    """Why nobody needs it."""

    model_config = ConfigDict(extra="forbid")

    note: str = Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")


@blueprint.get("/dead-letters", responses=_ANSWER)
def get_page(query: Wanted) -> Response:
    """A page of dead letters without their bytes, newest first; `next` is the cursor of the page after it."""
    state = None if query.state == "any" else query.state
    wanted = Selection(topic=query.topic, reason=query.reason, state=state, since=query.since, until=query.until)
    with OPERATING.transaction():
        letters = dead_letters.page(wanted, query.limit, query.after())
    last = letters[-1] if len(letters) == query.limit else None
    return json_answer(
        {
            "dead_letters": [dead_letters.fields(letter) for letter in letters],
            "next": None if last is None else cursor((last.dead_at, last.id)),
        }
    )


@blueprint.get("/dead-letters/<uuid:letter_id>", responses=_ANSWER)
def get(path: One) -> Response:
    """One dead letter with the record as Kafka gave it: bytes as base64, and as text where they are text."""
    with OPERATING.transaction():
        letter = _found(path.letter_id)
    record = dead_letters.record_of(letter)
    headers = [[name, *_bytes(value).values()] for name, value in record.headers]
    shown = {**dead_letters.fields(letter), "headers": headers}
    for name, raw in (("key", record.key), ("value", record.value)):
        shown |= {f"{name}_{kind}": value for kind, value in _bytes(raw).items()}
    return json_answer(shown)


@blueprint.post("/dead-letters/<uuid:letter_id>/redrive", responses=_ANSWER)
def redrive_one(path: One) -> Response:
    """Produce the record again; it is then stored, or becomes another dead letter."""
    with OPERATING.statements():
        _waiting(path.letter_id)
        done = _redriven(Selection(ids=(path.letter_id,)), 1)
    if done.failed:
        raise next(iter(done.failed.values()))
    if not done.redriven:  # another operator has it in hands
        raise _handled(path.letter_id, "being handled")
    return json_answer({"redriven": 1})


@blueprint.post("/dead-letters/redrive", responses=_ANSWER)
def redrive_some(body: Some) -> Response:
    """Produce the records of waiting dead letters again, the oldest first, and say what failed."""
    # Up to now: what dies again of these must not be taken again.
    wanted = Selection(topic=body.topic, reason=body.reason, until=datetime.now(UTC))
    with OPERATING.statements():
        done = _redriven(wanted, body.limit)
    failed = {str(letter_id): str(error) for letter_id, error in done.failed.items()}
    return json_answer({"redriven": len(done.redriven), "failed": failed})


@blueprint.post("/dead-letters/<uuid:letter_id>/discard", responses=_ANSWER)
def discard(path: One, body: Note) -> Response:
    """Say that nobody needs the record, and why. It is kept."""
    with OPERATING.transaction():
        _waiting(path.letter_id)
        discarded = sum(dead_letters.discard(Selection(ids=(path.letter_id,)), body.note))
    if not discarded:
        raise _handled(path.letter_id, "being handled")
    return json_answer({"discarded": 1})


@blueprint.post("/topics/<topic>/resume", responses=_ANSWER)
def resume(path: Named) -> Response:
    """Let the partitions of a topic that a flood of dead letters stopped be read again, within seconds."""
    topic = known_topic(path.topic, settings().kafka_topics)
    with OPERATING.transaction():
        resumed = bridges.release(topic)
    return json_answer({"resumed": resumed})


def _redriven(wanted: Selection, most: int) -> Batch:
    done = Batch([], {})
    for batch in redrive(publisher(), wanted, most):
        done.redriven.extend(batch.redriven)
        done.failed.update(batch.failed)
    return done


def _found(letter_id: uuid.UUID) -> DeadLetter:
    letter = dead_letters.find(letter_id)
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
