"""Whether Kafka and PostgreSQL can be used, asked concurrently and answered within a deadline."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import MappingProxyType
from typing import Any, NamedTuple

import peewee
import psycopg2

from api import deadlines
from api.deadlines import TooSlow
from api.postgresql import HEALTH
from api.problems import Problem
from bridge.kafka.publisher import Publisher
from bridge.kafka.single_flight import SingleFlight
from tasks.store import bridge_status, lost_records, messages, migrations, task_status
from tasks.store.lost_records import Loss

_DEADLINE_SECONDS = 1.5  # for all services together: a probe that times out shows no reason
_NAMES = {"kafka": "Kafka", "postgresql": "PostgreSQL"}


class ServiceStatus(NamedTuple):
    """Why a service cannot be used, or None; and what PostgreSQL has.

    That is the status of the bridges, lost records, and why each users' task does not run, or None.
    """

    reason: str | None
    bridges: Sequence[Mapping[str, Any]] = ()
    losses: Sequence[Loss] = ()
    tasks: Mapping[str, str | None] = MappingProxyType({})


class Readiness:
    """Checks the services. However many requests ask, each service is asked once at a time."""

    def __init__(self, publisher: Publisher) -> None:
        self._checks = {
            "kafka": SingleFlight(lambda: ServiceStatus(publisher.unavailable_reason()), 0),
            "postgresql": SingleFlight(_postgresql, 0),
        }

    def check(self) -> dict[str, ServiceStatus]:
        """The status of each service by its name, within 1.5 s."""
        end = time.monotonic() + _DEADLINE_SECONDS
        checks = {name: check.begin() for name, check in self._checks.items()}  # all at once
        return {name: _result(name, check, end) for name, check in checks.items()}


def _result(name: str, check: "Future[ServiceStatus]", end: float) -> ServiceStatus:
    try:
        return check.result(max(0.0, end - time.monotonic()))
    except TimeoutError:
        return _late(name)


def _late(name: str) -> ServiceStatus:
    return ServiceStatus(f"{_NAMES[name]} did not respond within {_DEADLINE_SECONDS} s")


def _postgresql() -> ServiceStatus:
    try:
        with HEALTH.transaction():
            messages.ping()
            mismatch = migrations.mismatch()
            bridges = bridge_status.reports()
            if mismatch:
                return ServiceStatus(mismatch, bridges)
            return ServiceStatus(None, bridges, lost_records.waiting(), task_status.health())
    except (TooSlow, Problem):
        return _late("postgresql")
    except (peewee.PeeweeException, psycopg2.Error) as error:
        return ServiceStatus(deadlines.reason(error))
