"""GET /metrics: the metrics of all processes of this server, for Prometheus."""

from flask import Response, request
from flask_openapi3 import APIBlueprint, Tag

from api import auth
from api.services import services
from tasks.observability import metrics

blueprint = APIBlueprint(
    "metrics",
    __name__,
    url_prefix="/metrics",
    abp_tags=[Tag(name="Metrics", description="For Prometheus")],
    abp_security=auth.SECURITY,
)
auth.needs(blueprint, "operate")


@blueprint.get("", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
def get() -> Response:
    """The metrics of all processes of this server, in the Prometheus text format, or OpenMetrics if accepted."""
    directory = services().settings.prometheus_multiproc_dir
    text, content_type = metrics.exposition(directory, request.headers.get("Accept", ""))
    return Response(text, content_type=content_type)
