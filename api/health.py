"""GET /health for probes that restart, GET /health/ready for people and for probes that route traffic."""

import peewee
from flask import Response
from flask_openapi3 import APIBlueprint, Tag

from api.answers import json_answer, publisher
from tasks import bridges, store
from tasks.database import TRANSIENT, explain

blueprint = APIBlueprint(
    "health", __name__, url_prefix="/health", abp_tags=[Tag(name="Health", description="For probes and people")]
)


@blueprint.get("", responses={200: {"description": "it serves", "content": {"application/json": {}}}})
def live() -> Response:
    """200 while this process can serve. Asks no other service: their outage is not cured by our restart."""
    return Response(b'{"status":"ok"}\n', content_type="application/json")


@blueprint.get("/ready", responses={200: {"description": "messages are accepted", "content": {"application/json": {}}}})
def ready() -> Response:
    """Each service with what is wrong, and the bridges; 503 while messages cannot be accepted."""
    kafka = publisher().wrong()
    postgresql = _postgresql()
    services = {"kafka": kafka, "postgresql": postgresql}
    told = bridges.reports() if postgresql is None else []
    body = {
        "status": "ok" if not any(services.values()) else "degraded" if kafka is None else "unavailable",
        "services": {name: {"ok": wrong is None, "reason": wrong} for name, wrong in services.items()},
        "bridges": told,  # what each says of itself: what it holds back for, and which partitions are stopped
    }
    return json_answer(body, 200 if kafka is None else 503)


def _postgresql() -> str | None:
    try:
        store.ping()
    except peewee.ProgrammingError:
        return "the tables are missing: run init"
    except TRANSIENT as error:
        return str(explain(error))
    except peewee.DatabaseError as error:
        return str(error).strip().splitlines()[0]
    return None
