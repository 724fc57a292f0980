"""The users' tasks over HTTP: what waits and what failed, to retry or discard it; pausing, retiring and replaying."""

import time
from http import HTTPStatus
from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict, Field

from api import auth, bodies, slots
from api.params import Moment
from api.postgresql import OPERATING
from api.problems import Problem
from api.responses import json_response
from tasks.errors import ConfigurationError, Unavailable
from tasks.store import failed_runs, replays, task_registry, task_status
from tasks.store.failed_runs import RunSelection

blueprint = APIBlueprint(
    "runs", __name__, abp_tags=[Tag(name="Tasks", description="Your own tasks")], abp_security=auth.SECURITY
)
auth.needs(blueprint, "operate")
bodies.bound(blueprint)
slots.limit(blueprint, "operating")

_ANSWER: dict[str | int | HTTPStatus, Any] = {200: {"description": "the result", "content": {"application/json": {}}}}
_LARGEST = (1 << 63) - 1
_REPLAY_SECONDS = 3.0  # of a request, and what its last step takes


class RunQuery(BaseModel):
    """Filters, and a page; a run must match all filters that are set."""

    model_config = ConfigDict(extra="forbid")

    task: str | None = Field(None, description="of this task")
    state: str | None = Field(
        "failed", pattern="^(waiting|retrying|failed|discarded|expired|done|any)$", description="or any"
    )
    since: Moment | None = Field(None, alias="from", description="changed at this time or later")
    until: Moment | None = Field(None, alias="to", description="changed before this time")
    before: int | None = Field(None, ge=1, le=_LARGEST, description="the `next` of the page before")
    limit: int = Field(100, ge=1, le=1000, description="most on a page")


class RunPath(BaseModel):
    """A run's id."""

    run_id: int = Field(ge=1, le=_LARGEST)


class TaskPath(BaseModel):
    """A task's name."""

    name: str


class NoteBody(BaseModel):
    """The reason."""

    model_config = ConfigDict(extra="forbid")

    note: str = Field(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")


class ReplayBody(BaseModel):
    """A time in which messages were stored."""

    model_config = ConfigDict(extra="forbid")

    since: Moment = Field(alias="from", description="stored at this time or later")
    until: Moment = Field(alias="to", description="stored before this time")
    again: bool = Field(False, description="also for messages that it has run for, or has still to")
    dry_run: bool = Field(False, description="change nothing, only count")


@blueprint.get("/tasks", responses=_ANSWER)
def get_tasks() -> Response:
    """Every task, with the messages that it has still to run for, and its failed runs."""
    with OPERATING.transaction():
        found = task_status.all_tasks()
    return json_response({"tasks": [task._asdict() for task in found]})


@blueprint.post("/tasks/<name>/pause", responses=_ANSWER)
def pause(path: TaskPath, body: NoteBody) -> Response:
    """Let a task run nothing until it is resumed; what it has to run for waits."""
    with OPERATING.transaction():
        _check_task(path.name)
        return json_response({"paused": int(task_status.pause(path.name, body.note))})


@blueprint.post("/tasks/<name>/resume", responses=_ANSWER)
def resume(path: TaskPath) -> Response:
    """Let a paused task run again."""
    with OPERATING.transaction():
        _check_task(path.name)
        return json_response({"resumed": int(task_status.resume(path.name))})


@blueprint.post("/tasks/<name>/retire", responses=_ANSWER)
def retire(path: TaskPath) -> Response:
    """End a task: messages that are stored from now on do not run it. It still runs what it was obliged to before."""
    with OPERATING.statements():
        _check_task(path.name)
        try:
            return json_response({"retired": int(task_registry.retire(path.name))})
        except Unavailable as error:
            raise Problem(503, "unavailable", "The task is not retired", f"{error}. Try again.") from None


@blueprint.post("/tasks/<name>/replay", responses=_ANSWER)
def replay(path: TaskPath, body: ReplayBody) -> Response:
    """Let a task run for messages that were stored before it existed: for as many as a few seconds suffice.

    `messages` says how many, `until` up to which time. If it is not `done`, send the same with `until` as `from`.
    """
    messages, until, end = 0, body.since, time.monotonic() + _REPLAY_SECONDS
    with OPERATING.statements():
        try:
            for step in replays.replay(path.name, body.since, body.until, body.again, body.dry_run):
                messages, until = messages + step.messages, step.until
                if time.monotonic() >= end:
                    break
            else:
                until = body.until
        except ConfigurationError as error:
            raise Problem(404, "not-found", "No such task", f"{error}.") from None
    return json_response({"messages": messages, "until": until, "done": until >= body.until})


@blueprint.get("/runs", responses=_ANSWER)
def get_page(query: RunQuery) -> Response:
    """A page of runs that failed, newest first; `next` is the `before` of the page after it."""
    state = None if query.state == "any" else query.state
    selection = RunSelection(task=query.task, state=state, since=query.since, until=query.until, before=query.before)
    with OPERATING.transaction():
        found = failed_runs.page(selection, query.limit)
    return json_response({"runs": found, "next": found[-1]["id"] if len(found) == query.limit else None})


@blueprint.get("/runs/<int:run_id>", responses=_ANSWER)
def get(path: RunPath) -> Response:
    """A run with its error and traceback."""
    with OPERATING.transaction():
        return json_response(_found(path.run_id))


@blueprint.post("/runs/<int:run_id>/retry", responses=_ANSWER)
def retry(path: RunPath) -> Response:
    """Run a failed run once more."""
    with OPERATING.transaction():
        _check_failed(path.run_id)
        return json_response({"retried": failed_runs.retry(RunSelection(ids=(path.run_id,)))})


@blueprint.post("/runs/<int:run_id>/discard", responses=_ANSWER)
def discard(path: RunPath, body: NoteBody) -> Response:
    """Mark a failed run as discarded, with a note. It is kept."""
    with OPERATING.transaction():
        _check_failed(path.run_id)
        return json_response({"discarded": failed_runs.discard(RunSelection(ids=(path.run_id,)), body.note)})


def _check_task(name: str) -> None:
    if name not in task_status.names():
        raise Problem(404, "not-found", "No such task", f"There is no task {name!r}.")


def _found(run_id: int) -> dict[str, Any]:
    run = failed_runs.find(run_id)
    if run is None:
        raise Problem(404, "not-found", "No such run", f"There is no run {run_id}.")
    return run


def _check_failed(run_id: int) -> None:
    state = _found(run_id)["state"]
    if state != "failed":
        raise Problem(409, "already-handled", "The run has not failed", f"{run_id} is {state}.")
