"""GET /stats and GET /topics: how many messages are stored, how fast, and the lag of the consumer group."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import peewee
import psycopg2
from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel, ConfigDict, Field

from api import auth, deadlines, slots
from api.deadlines import TooSlow
from api.params import Moment
from api.postgresql import READING
from api.problems import Problem, bad_parameter
from api.responses import json_response
from api.services import services
from bridge.kafka.lag import Lag
from tasks.errors import Unavailable
from tasks.store import bridge_status, statistics, task_status

T = TypeVar("T")
blueprint = APIBlueprint(
    "statistics",
    __name__,
    abp_tags=[Tag(name="Statistics", description="Counts, rates and lag")],
    abp_security=auth.SECURITY,
)
auth.needs(blueprint, "read")
slots.limit(blueprint, "reading")

_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}
_MOST_BUCKETS = 1500
_OF_POSTGRESQL = ("buckets", "types", "messages_of_other_types", "per_second", "dead_letters", "in_flight", "tasks")
_OF_A_TASK = ("name", "retired", "paused", "waiting", "oldest_seconds", "calls", "retrying", "failed", "at_least")
_MOST_SECONDS = 5  # for all counts: a long time range must not keep a connection for minutes


class Range(BaseModel):
    """The time range, and what is counted."""

    model_config = ConfigDict(extra="forbid")

    since: Moment | None = Field(
        None, alias="from", description="stored in this minute or later; by default an hour ago"
    )
    until: Moment | None = Field(None, alias="to", description="stored before this time; by default now")
    bucket: Literal["minute", "hour", "day"] = Field("minute", description="the size of a bucket, in UTC")
    type: str | None = Field(None, description="this type only")


@blueprint.get("/stats", responses={200: {"description": "counts", "content": {"application/json": {}}}})
def get_statistics(query: Range) -> Response:
    """Messages by time and type, rates, dead letters, in flight, lag, and what waits for your tasks.

    After two days, messages are counted by hours. Of a batch with more than 200 types, and of an hour with more than
    1,000, the rarest are counted without their names (`messages_of_other_types`).

    A value that needs an unavailable service is null, and `problems` has the reason.
    """
    until = query.until or datetime.now(UTC)
    since = query.since or until - timedelta(hours=1)
    if (until - since).total_seconds() / _SECONDS[query.bucket] > _MOST_BUCKETS:
        detail = f"There are at most {_MOST_BUCKETS} buckets: choose larger ones, or a shorter time range."
        raise bad_parameter("bucket", detail)
    problems: list[str] = []
    stored = _or_none(lambda: _stored(query, since, until), problems)
    lag = _or_none(services().lags.now, problems)
    ages = [one.seconds for one in lag or () if one.seconds is not None]
    body = {
        "from": since.isoformat(),
        "to": until.isoformat(),
        **(stored or dict.fromkeys(_OF_POSTGRESQL)),
        "lag": None if lag is None else [_shown(one) for one in lag],
        "lag_records": None if lag is None else sum(one.records for one in lag),
        "oldest_unstored_seconds": round(max(ages), 1) if ages else None,
        "problems": problems,
    }
    return json_response(body)


@blueprint.get("/topics", responses={200: {"description": "topics", "content": {"application/json": {}}}})
def get_topics() -> Response:
    """The topics with their partitions: offsets, lag, and whether they are quarantined.

    A value that needs an unavailable service is null, and `problems` has the reason.
    """
    problems: list[str] = []
    quarantined = _or_none(_quarantined, problems)
    lags = _or_none(services().lags.now, problems)
    shown = [
        {
            "topic": topic,
            "partitions": None
            if lags is None
            else [_partition(one, quarantined) for one in lags if one.topic == topic],
            "quarantined": None
            if quarantined is None
            else sorted(number for name, number in quarantined if name == topic),
        }
        for topic in services().settings.consumed_topics
    ]
    return json_response({"topics": shown, "problems": problems})


def _quarantined() -> set[tuple[str, int]]:
    with READING.transaction(_MOST_SECONDS):
        return {(one.topic, one.partition) for one in bridge_status.quarantined()}


def _partition(one: Lag, quarantined: set[tuple[str, int]] | None) -> dict[str, Any]:
    return {**_shown(one), "quarantined": None if quarantined is None else (one.topic, one.partition) in quarantined}


def _stored(query: Range, since: datetime, until: datetime) -> dict[str, Any]:
    with READING.transaction(_MOST_SECONDS):
        return _counted(query, since, until)


def _counted(query: Range, since: datetime, until: datetime) -> dict[str, Any]:
    counted = statistics.buckets(query.bucket, since, until, query.type)
    types, other = statistics.by_type(since, until, query.type)
    one, five, fifteen = statistics.rates()
    reports = bridge_status.reports()
    return {
        "buckets": [{"at": at.isoformat(), "messages": count} for at, count in counted],
        "types": [{"type": kind, "messages": n} for kind, n in types],
        "messages_of_other_types": other,
        "per_second": {"1_minute": round(one, 3), "5_minutes": round(five, 3), "15_minutes": round(fifteen, 3)},
        "dead_letters": [{"reason": r, "state": s, "records": n} for r, s, n in statistics.dead_letters()],
        "in_flight": {
            "batches": sum(report.get("in_flight", 0) for report in reports),
            "bytes": sum(report.get("in_flight_bytes", 0) for report in reports),
        },
        "tasks": [{name: getattr(task, name) for name in _OF_A_TASK} for task in task_status.all_tasks()],
    }


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
