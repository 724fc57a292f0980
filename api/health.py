"""GET /health for probes that restart, GET /health/ready for people and for probes that route traffic."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import peewee
import psycopg2
from flask import Flask, Response, current_app
from flask_openapi3 import APIBlueprint, Tag

from api import deadlines
from api.answers import json_answer
from api.deadlines import TooSlow
from api.postgresql import HEALTH
from api.problems import Problem
from bridge.publisher import Publisher
from bridge.single_flight import SingleFlight
from tasks import bridges, schema, store

_PATIENCE_SECONDS = 1.5  # for all services together: a probe that gets no answer in time learns nothing
_NAMES = {"kafka": "Kafka", "postgresql": "PostgreSQL"}


class _Told(NamedTuple):
    """What is wrong with a service, if anything, and what it says of the bridges."""

    wrong: str | None
    bridges: Sequence[Mapping[str, Any]] = ()


_Flights = dict[str, SingleFlight[_Told]]
blueprint = APIBlueprint(
    "health", __name__, url_prefix="/health", abp_tags=[Tag(name="Health", description="For probes and people")]
)


@blueprint.get("", responses={200: {"description": "it serves", "content": {"application/json": {}}}})
def live() -> Response:
    """200 while this process can serve. Asks no other service: their outage is not cured by our restart."""
    return Response(b'{"status":"ok"}\n', content_type="application/json")


@blueprint.get("/ready", responses={200: {"description": "messages are accepted", "content": {"application/json": {}}}})
def ready() -> Response:
    """Each service with what is wrong, and the bridges, within 2 s; 503 while messages cannot be accepted."""
    end = time.monotonic() + _PATIENCE_SECONDS
    flights: _Flights = current_app.extensions["health"]
    asked = {name: flight.begin() for name, flight in flights.items()}  # all at once
    told = {name: _in_time(name, answer, end) for name, answer in asked.items()}
    kafka, postgresql = told["kafka"].wrong, told["postgresql"].wrong
    body = {
        "status": "ok" if kafka is postgresql is None else "degraded" if kafka is None else "unavailable",
        "services": {name: {"ok": one.wrong is None, "reason": one.wrong} for name, one in told.items()},
        # What each says of itself: what it holds back for, and which partitions are stopped.
        "bridges": told["postgresql"].bridges,
    }
    return json_answer(body, 200 if kafka is None else 503)


def register(app: Flask, publisher: Publisher) -> None:
    """Let `app` ask its services, one question to each at a time."""
    flights: _Flights = {
        "kafka": SingleFlight(lambda: _Told(publisher.wrong()), 0),
        "postgresql": SingleFlight(_postgresql, 0),
    }
    app.extensions["health"] = flights


def _in_time(name: str, answer: "Future[_Told]", end: float) -> _Told:
    try:
        return answer.result(max(0.0, end - time.monotonic()))
    except TimeoutError:
        return _Told(f"{_NAMES[name]} did not answer within {_PATIENCE_SECONDS} s")


def _postgresql() -> _Told:
    try:
        with HEALTH.transaction():
            return _Told(_wrong_with_tables(), bridges.reports())
    except (TooSlow, Problem):
        return _Told(f"{_NAMES['postgresql']} did not answer within {_PATIENCE_SECONDS} s")
    except (peewee.PeeweeException, psycopg2.Error) as error:
        return _Told(deadlines.reason(error))


def _wrong_with_tables() -> str | None:
    """A sentence on tables that can be read and are not those of this code; None when they are."""
    store.ping()
    return schema.mismatch()
