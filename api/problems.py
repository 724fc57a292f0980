"""Errors as HTTP responses: RFC 9457 problem JSON, one table from errors to status, no traceback for the client."""

from collections.abc import Callable
from typing import Any

import orjson
import peewee
import psycopg2
from flask import Flask, Response, request
from pydantic import BaseModel, Field, ValidationError
from werkzeug.exceptions import ClientDisconnected, HTTPException

from api.deadlines import Late, TooSlow
from bridge.kafka.publisher import Overloaded, Refused, TooLarge, UnknownOutcome
from tasks.errors import BackendError, BadRecord, Unavailable
from tasks.observability import events, metrics
from tasks.store.connection import ACCESS_DENIED, NO_COLUMN, NO_TABLE, TRANSIENT, database, sqlstate

_TYPES = "/problems/"  # a relative reference, RFC 9457 section 3.1.1; docs/http-api.md explains each


class ProblemShape(BaseModel):
    """The body of every error response (RFC 9457)."""

    type: str = Field(description="names the problem; docs/http-api.md explains each")
    title: str
    status: int
    detail: str = Field(description="a sentence about this occurrence")
    instance: str = Field(description="the path of the request")
    pointer: str | None = Field(None, description="the place in the body (RFC 6901)")
    parameter: str | None = Field(None, description="the name of the parameter")


class Problem(Exception):
    """Raised by a view to respond with a problem. `slug` is the last part of its type."""

    def __init__(self, status: int, slug: str, title: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.title = title
        self.detail = detail
        self.more = more


def register(app: Flask) -> None:
    """Respond to every error of this application with a problem."""
    app.register_error_handler(Problem, respond)
    for kind in _FROM_OURS:
        app.register_error_handler(kind, lambda error: respond(_problem(error)))
    for away in TRANSIENT:
        app.register_error_handler(away, _database_away)
    for refused in (psycopg2.ProgrammingError, peewee.ProgrammingError):
        app.register_error_handler(refused, _database_refused)
    app.register_error_handler(ClientDisconnected, lambda _: respond(_incomplete_body()))
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unforeseen)


def respond(problem: Problem) -> Response:
    """The response for a problem."""
    metrics.PROBLEMS.add(1, problem.slug)
    body = {**_shape(problem), "instance": request.path}
    events.emit("request.rejected", status=problem.status, problem=problem.slug, detail=problem.detail)
    response = Response(orjson.dumps(body), status=problem.status, content_type="application/problem+json")
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if problem.status == 503:
        response.headers["Retry-After"] = "1"
    return response


def shape_of(error: BackendError | Problem) -> dict[str, Any]:
    """An error as the problem of one item of a batch."""
    return _shape(error if isinstance(error, Problem) else _problem(error))


def _shape(problem: Problem) -> dict[str, Any]:
    return {
        "type": _TYPES + problem.slug,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        **problem.more,
    }


def bad_parameters(error: ValidationError) -> Response:
    """The response to an unknown or invalid parameter in path or query."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        detail = f"There is no parameter {name}."
    else:
        reason = first["msg"].removeprefix("Value error, ")
        detail = reason if reason.startswith(name) else f"{name}: {reason}"
    return respond(bad_parameter(name, detail))


def bad_parameter(name: str, detail: str) -> Problem:
    """A parameter or header is unknown or invalid."""
    return Problem(400, "bad-parameter", "A parameter is wrong", detail, parameter=name)


def too_large(detail: str) -> Problem:
    """The body, or the message in it, is larger than allowed."""
    return Problem(413, "too-large", "The message is too large", detail)


def _bad_record(error: BackendError) -> Problem:
    slug = getattr(error, "reason", "not_json").replace("_", "-")
    detail = getattr(error, "detail", str(error))
    return Problem(400, slug, "The body is not JSON that can be stored", detail)


def _unavailable(error: BackendError) -> Problem:
    return Problem(503, "unavailable", "Kafka is away", f"{error}. The message was not accepted; try again.")


def _overloaded(error: BackendError) -> Problem:
    return Problem(503, "overloaded", "Too many messages at once", f"{error}. The message was not accepted; try again.")


def _unknown_outcome(error: BackendError) -> Problem:
    events.emit("message.unacknowledged", reason=str(error))
    detail = f"{error}; it may be stored later. Send it again with the same id: it is stored once."
    return Problem(503, "unknown-outcome", "The outcome is unknown", detail)


def _incomplete_body() -> Problem:
    detail = "The body ended, or paused for too long, before its announced length."
    return Problem(400, "incomplete-body", "A part of the body is missing", detail)


_FROM_OURS: dict[type[BackendError], Callable[[BackendError], Problem]] = {
    BadRecord: _bad_record,
    TooLarge: lambda error: too_large(str(error)),
    Refused: lambda error: Problem(422, "cannot-be-sent", "The record cannot be sent to Kafka", str(error)),
    Overloaded: _overloaded,
    Unavailable: _unavailable,
    UnknownOutcome: _unknown_outcome,
    TooSlow: lambda error: Problem(503, "query-too-slow", "The query took too long", str(error)),
}


def _problem(error: BackendError) -> Problem:
    for kind, make in _FROM_OURS.items():
        if isinstance(error, kind):
            return make(error)
    raise error


def _database_away(error: Exception) -> Response:
    if not isinstance(error, Late) and isinstance(error, peewee.PeeweeException) and not database.is_closed():
        database.close()
    detail = f"{error}." if isinstance(error, Late) else "Messages cannot be read at the moment."
    return _database("PostgreSQL is unavailable", detail, error)


def _database_refused(error: Exception) -> Response:
    code = sqlstate(error)
    if code == ACCESS_DENIED:
        detail = "PostgreSQL denies the API's user access to a table of this request; the log names it."
        return _database("PostgreSQL denies access", detail, error)
    if code in (NO_TABLE, NO_COLUMN):
        return _database("Tables are missing", "Tables or columns are missing: run init.", error)
    return _unforeseen(error)


def _database(title: str, detail: str, error: Exception) -> Response:
    events.emit("service.unavailable", service="postgresql", reason=str(error).strip())
    return respond(Problem(503, "unavailable", title, detail))


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    slug = error.name.lower().replace(" ", "-")
    response = respond(Problem(status, slug, error.name, error.description or error.name))
    if status == 405 and error.get_response().headers.get("Allow"):
        response.headers["Allow"] = error.get_response().headers["Allow"]
    return response


def _unforeseen(error: Exception) -> Response:
    events.emit("request.failed", error, reason=f"{type(error).__name__}: {error}")
    return respond(Problem(500, "internal", "Internal error", "The server failed; its log has the reason."))
