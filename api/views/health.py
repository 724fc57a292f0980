"""GET /health for liveness probes, GET /health/ready for readiness probes and for people."""

from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint, Tag

from api.responses import json_response
from api.services import services

blueprint = APIBlueprint(
    "health", __name__, url_prefix="/health", abp_tags=[Tag(name="Health", description="For probes and people")]
)


@blueprint.get("", responses={200: {"description": "the process serves", "content": {"application/json": {}}}})
def live() -> Response:
    """200 while this process can serve. Checks no other service, because a restart would not end their outage."""
    return Response(b'{"status":"ok"}\n', content_type="application/json")


@blueprint.get("/ready", responses={200: {"description": "messages are accepted", "content": {"application/json": {}}}})
def ready() -> Response:
    """The status of each service, of the bridges and of your tasks, within 2 s; 503 while messages cannot be accepted.

    A task that is paused, or that no worker can run, is shown, and does not count: messages are accepted and stored.
    """
    status = services().readiness.check()
    kafka, postgresql = status["kafka"].reason, status["postgresql"].reason
    losses = status["postgresql"].losses
    healthy = kafka is postgresql is None and not losses
    body = {
        "status": "ok" if healthy else "degraded" if kafka is None else "unavailable",
        "services": {name: _shown(one.reason) for name, one in status.items()},
        "bridges": status["postgresql"].bridges,  # each with its backpressure and quarantined partitions
        "lost_records": [loss._asdict() for loss in losses],  # until somebody acknowledges them
        "tasks": {name: _shown(reason) for name, reason in status["postgresql"].tasks.items()},
    }
    return json_response(body, 200 if kafka is None else 503)


def _shown(reason: str | None) -> dict[str, Any]:
    return {"ok": reason is None, "reason": reason}
