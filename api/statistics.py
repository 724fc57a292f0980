"""GET /stats and GET /topics: how much is stored, how fast, and how far behind the consumer group is."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import peewee
import psycopg2
from flask import Response, current_app
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict, Field

from api import access, deadlines, limits
from api.answers import json_answer, settings
from api.deadlines import TooSlow
from api.moments import Moment
from api.postgresql import READING
from api.problems import Problem, bad_parameter
from bridge.lag import Lag, Lags
from tasks import bridges, statistics
from tasks.errors import Unavailable

T = TypeVar("T")
blueprint = APIBlueprint(
    "statistics",
    __name__,
    abp_tags=[Tag(name="Statistics", description="How much, how fast, how far behind")],
    abp_security=access.SECURITY,
)
access.needs(blueprint, "read")
limits.bound(blueprint, "reading")

_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}
_MOST_BUCKETS = 1500
_MOST_SECONDS = 5  # for all counts: a request for months of a large table must not keep a connection for minutes


class Range(BaseModel):
    """What is counted."""

    model_config = ConfigDict(extra="forbid")

    since: Moment | None = Field(None, alias="from", description="stored at this time or later; by default an hour ago")
    until: Moment | None = Field(None, alias="to", description="stored before this time; by default now")
    bucket: Literal["minute", "hour", "day"] = Field("minute", description="what is counted together, in UTC")
    type: str | None = Field(None, description="this type only")


@blueprint.get("/stats", responses={200: {"description": "counts", "content": {"application/json": {}}}})
def get_statistics(query: Range) -> Response:
    """Messages by time and type, rates, dead letters, in flight, and lag.

    What cannot be told because its service is away is null, and `problems` says why.
    """
    until = query.until or datetime.now(UTC)
    since = query.since or until - timedelta(hours=1)
    if (until - since).total_seconds() / _SECONDS[query.bucket] > _MOST_BUCKETS:
        detail = f"There are at most {_MOST_BUCKETS} buckets: choose larger ones, or less time."
        raise bad_parameter("bucket", detail)
    problems: list[str] = []
    stored = _or_none(lambda: _stored(query, since, until), problems)
    lag = _or_none(_lags().now, problems)
    ages = [one.seconds for one in lag or () if one.seconds is not None]
    body = {
        "from": since.isoformat(),
        "to": until.isoformat(),
        **(stored or dict.fromkeys(("buckets", "types", "per_second", "dead_letters", "in_flight"))),
        "lag": None if lag is None else [_shown(one) for one in lag],
        "lag_records": None if lag is None else sum(one.records for one in lag),
        "oldest_unstored_seconds": round(max(ages), 1) if ages else None,
        "problems": problems,
    }
    return json_answer(body)


@blueprint.get("/topics", responses={200: {"description": "topics", "content": {"application/json": {}}}})
def get_topics() -> Response:
    """The topics with their partitions: offsets, lag, and whether a flood of dead letters stopped them.

    What cannot be told because its service is away is null, and `problems` says why.
    """
    problems: list[str] = []
    stopped = _or_none(_stopped, problems)
    lags = _or_none(_lags().now, problems)
    shown = [
        {
            "topic": topic,
            "partitions": None if lags is None else [_partition(one, stopped) for one in lags if one.topic == topic],
            "stopped": None if stopped is None else sorted(number for name, number in stopped if name == topic),
        }
        for topic in settings().kafka_topics
    ]
    return json_answer({"topics": shown, "problems": problems})


def _stopped() -> set[tuple[str, int]]:
    with READING.transaction(_MOST_SECONDS):
        return {(one.topic, one.partition) for one in bridges.stopped()}


def _partition(one: Lag, stopped: set[tuple[str, int]] | None) -> dict[str, Any]:
    return {**_shown(one), "stopped": None if stopped is None else (one.topic, one.partition) in stopped}


def _stored(query: Range, since: datetime, until: datetime) -> dict[str, Any]:
    with READING.transaction(_MOST_SECONDS):
        return _counted(query, since, until)


def _counted(query: Range, since: datetime, until: datetime) -> dict[str, Any]:
    counted = statistics.buckets(query.bucket, since, until, query.type)
    one, five, fifteen = statistics.rates()
    reports = bridges.reports()
    return {
        "buckets": [{"at": at.isoformat(), "messages": count} for at, count in counted],
        "types": [{"type": kind, "messages": n} for kind, n in statistics.by_type(since, until, query.type)],
        "per_second": {"1_minute": round(one, 3), "5_minutes": round(five, 3), "15_minutes": round(fifteen, 3)},
        "dead_letters": [{"reason": r, "state": s, "records": n} for r, s, n in statistics.dead_letters()],
        "in_flight": {
            "batches": sum(report.get("in_flight", 0) for report in reports),
            "bytes": sum(report.get("in_flight_bytes", 0) for report in reports),
        },
    }


def _lags() -> Lags:
    lags: Lags = current_app.extensions["lags"]
    return lags


def _or_none(ask: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return ask()
    except (Unavailable, TooSlow, Problem) as error:
        problems.append(str(error))
    except (peewee.PeeweeException, psycopg2.Error) as error:
        problems.append(f"PostgreSQL: {deadlines.reason(error)}")
    return None


def _shown(one: Lag) -> dict[str, Any]:
    return {
        "topic": one.topic,
        "partition": one.partition,
        "first_offset": one.first_offset,
        "next_offset": one.next_offset,
        "committed": one.committed,
        "lag_records": one.records,
        "lag_seconds": None if one.seconds is None else round(one.seconds, 1),
    }
