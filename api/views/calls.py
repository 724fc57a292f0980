"""POST /tasks/NAME calls a users' task; GET /runs/ID returns the state of a call, and can wait for its end."""

import uuid
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict, Field
from uuid_utils import uuid7

from api import auth, bodies, dispatch, schemas, slots, waiting
from api.deadlines import TooSlow
from api.params import Moment
from api.postgresql import KEYS, READING
from api.problems import Problem, bad_parameter
from api.requests import Outgoing
from api.responses import json_response
from api.services import services
from api.wsgi import current_request
from tasks.calls import Moments, headers
from tasks.errors import BackendError
from tasks.json_value import parse
from tasks.observability import events
from tasks.store import calls, task_registry
from tasks.store.connection import TRANSIENT

_TAG = Tag(name="Tasks", description="Your own tasks")
calling = APIBlueprint("calling", __name__, abp_tags=[_TAG], abp_security=auth.SECURITY)
auth.needs(calling, "write")
looking = APIBlueprint("looking", __name__, abp_tags=[_TAG], abp_security=auth.SECURITY)
auth.needs(looking, "read")
slots.limit(looking, "reading")

_LONGEST_SECONDS = 10 * 366 * 86_400  # of a countdown
_ENDED = ("done", "failed", "expired", "discarded")


class TaskPath(BaseModel):
    """A task's name."""

    name: str = Field(pattern=r"^[^\x00]*$")


class CallQuery(BaseModel):
    """When the call is run, and its id. Names and meanings are Celery's."""

    model_config = ConfigDict(extra="forbid")

    countdown: float | None = Field(None, ge=0, le=_LONGEST_SECONDS, description="seconds until it is run")
    eta: Moment | None = Field(None, description="it is run at this time or later")
    expires: float | None = Field(None, gt=0, le=_LONGEST_SECONDS, description="seconds after which it is not run")
    task_id: uuid.UUID | None = Field(None, description="a call with the id of an earlier one is not run")


class CallPath(BaseModel):
    """A call's id."""

    call_id: uuid.UUID


class WaitQuery(BaseModel):
    """How long to wait."""

    model_config = ConfigDict(extra="forbid")

    wait: float = Field(0, ge=0, le=waiting.LONGEST_SECONDS, description="seconds to wait until it has ended")


@calling.post("/tasks/<name>", responses={202: schemas.Called}, openapi_extensions=schemas.PAYLOAD)
def call(path: TaskPath, query: CallQuery) -> Response:
    """Let a task run for the payload in the body, any JSON value: 202 once all in-sync replicas of Kafka have the call.

    `GET /runs/ID` returns its state.
    """
    if query.countdown is not None and query.eta is not None:
        raise bad_parameter("eta", "countdown and eta exclude each other.")
    own, request = services().settings, current_request()
    bodies.check_type(request.mimetype, ("application/json", ""))
    value = bodies.read(request, own.max_body_bytes) or b"null"
    with services().limits.publishing:
        parse(value)
        _check_name(path.name)
        call_id = query.task_id or uuid.UUID(str(uuid7()))
        moments = Moments.of(query.countdown, query.eta, query.expires)
        message = Outgoing(str(call_id), own.kafka_calls_topic, None, value, headers(path.name, call_id, moments))
        [outcome] = dispatch.publish([message])
    if isinstance(outcome, BackendError):
        raise outcome
    events.emit("task.called", id=str(call_id), task=path.name)
    return json_response({"id": str(call_id), "task": path.name}, 202, f"/runs/{call_id}")


@looking.get("/runs/<uuid:call_id>", responses={200: schemas.CallState})
def get(path: CallPath, query: WaitQuery) -> Response:
    """A call: its state, and its result if the task has `store_result`. `wait` waits until it has ended.

    404 while it is not stored, which is usually a moment after it was accepted.
    """
    found = waiting.wait(lambda: _look(path.call_id), _has_ended, query.wait)
    if found is None:
        raise Problem(404, "not-found", "No such call", f"No call {path.call_id} is stored (yet).")
    return json_response(schemas.call_fields(path.call_id, found))


def _has_ended(found: dict[str, Any] | None) -> bool:
    return found is not None and found["state"] in _ENDED


def _look(call_id: uuid.UUID) -> dict[str, Any] | None:
    with READING.transaction():
        return calls.find(call_id)


def _check_name(name: str) -> None:
    try:
        names = KEYS.ask(lambda: list(task_registry.names()))
    except (*TRANSIENT, TooSlow, Problem):
        return  # accepting needs no PostgreSQL; the call then waits for a task of this name
    if name not in names:
        detail = f"There is no task {name!r}; there are: {', '.join(names[:20]) or 'none'}."
        raise Problem(404, "unknown-task", "No such task", detail)
