"""GET /metrics; and the counting, timing and tracing of every request and of what it sends to Kafka."""

import time
from collections.abc import Callable

from flask import Response, g, request
from flask_openapi3 import APIBlueprint, OpenAPI, Tag

from api import access
from api.answers import publisher, settings
from api.incoming import Outgoing
from bridge.publisher import Place
from tasks import metrics, traces

blueprint = APIBlueprint(
    "metrics",
    __name__,
    url_prefix="/metrics",
    abp_tags=[Tag(name="Metrics", description="For Prometheus")],
    abp_security=access.SECURITY,
)
access.needs(blueprint, "operate")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@blueprint.get("", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
def get() -> Response:
    """What all processes of this server have counted, in the format of Prometheus."""
    text, content_type = metrics.exposition(settings().prometheus_multiproc_dir, request.headers.get("Accept", ""))
    return Response(text, content_type=content_type)


def register(app: OpenAPI) -> None:
    """Measure every request to `app`. To be registered before what may refuse one."""
    app.before_request(_begin)
    app.after_request(_answered)
    app.teardown_request(_end)


def send(message: Outgoing) -> Callable[[], Place]:
    """Put a message on its way to Kafka as Publisher.send does, counted, timed, and with its trace."""
    began = time.monotonic()
    headers, sent = traces.sending(message.topic, message.headers)
    try:
        wait = publisher().send(message.topic, message.key, message.value, headers)
    except Exception as error:
        sent(error)
        raise

    def kept() -> Place:
        try:
            place = wait()
        except Exception as error:
            sent(error)
            raise
        sent(None)
        metrics.PUBLISH_SECONDS.observe(time.monotonic() - began, message.topic)
        metrics.ACCEPTED.add(1, message.topic)
        return place

    return kept


def _begin() -> None:
    g.began = time.monotonic()
    if traces.wanted():
        g.span = traces.request(request.method, _route(), request.path, request.headers.get("traceparent"))
        g.span.__enter__()


def _answered(response: Response) -> Response:
    route, method = _route(), request.method
    if method not in _METHODS:
        method = "other"
    traces.tell("http.response.status_code", response.status_code)
    metrics.REQUESTS.add(1, route, method, str(response.status_code))
    metrics.REQUEST_SECONDS.observe(time.monotonic() - g.began, route, method)
    return response


def _end(error: BaseException | None) -> None:
    if "span" in g:
        g.pop("span").__exit__(None, None, None)


def _route() -> str:
    """As /messages/<message_id>: a path that somebody made up must not become a label."""
    found = request.url_rule
    return "none" if found is None else found.rule
