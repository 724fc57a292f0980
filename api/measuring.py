"""GET /metrics; and the counting, timing and tracing of every request and of what it sends to Kafka."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from flask import Request, Response, g, request
from flask_openapi3 import APIBlueprint, OpenAPI, Tag

from api import access
from api.answers import publisher, settings
from api.incoming import Outgoing
from bridge.publisher import Place
from tasks import metrics, traces
from tasks.errors import BackendError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

blueprint = APIBlueprint(
    "metrics",
    __name__,
    url_prefix="/metrics",
    abp_tags=[Tag(name="Metrics", description="For Prometheus")],
    abp_security=access.SECURITY,
)
access.needs(blueprint, "operate")
_End = Callable[[Exception | None], None]  # of a span
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@blueprint.get("", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
def get() -> Response:
    """What all processes of this server have counted, in the format of Prometheus."""
    text, content_type = metrics.exposition(settings().prometheus_multiproc_dir, request.headers.get("Accept", ""))
    return Response(text, content_type=content_type)


def register(app: OpenAPI) -> None:
    """Measure every request to `app`. To be registered before what may refuse one."""
    app.wsgi_app = _counted(app.wsgi_app)  # type: ignore[assignment, method-assign]
    if traces.wanted():
        app.before_request(_begin)
        app.after_request(_answered)
        app.teardown_request(_end)


def publish(messages: Sequence[Outgoing]) -> list[Place | BackendError]:
    """Put messages into Kafka in their order: for each its place, or why it is not, or not surely, kept there.

    All are on their way before the first is waited for. Counted, timed, and with their traces.
    """
    began = time.monotonic()
    outcomes = [_wait(*sent) for sent in [_send(message) for message in messages]]
    kept: dict[str, int] = {}
    for outcome in outcomes:
        if isinstance(outcome, Place):
            kept[outcome.topic] = kept.get(outcome.topic, 0) + 1
    for topic, count in kept.items():
        metrics.PUBLISH_SECONDS.observe(time.monotonic() - began, topic)
        metrics.ACCEPTED.add(count, topic)
    return outcomes


def _send(message: Outgoing) -> tuple[Callable[[], Place] | BackendError, _End]:
    headers, end = traces.sending(message.topic, message.headers)
    try:
        return publisher().send(message.topic, message.key, message.value, headers), end
    except BackendError as error:
        return error, end


def _wait(wait: Callable[[], Place] | BackendError, end: _End) -> Place | BackendError:
    try:
        outcome = wait if isinstance(wait, BackendError) else wait()
    except BackendError as error:
        outcome = error
    end(outcome if isinstance(outcome, BackendError) else None)
    return outcome


def _counted(serve: "WSGIApplication") -> "WSGIApplication":
    """Around all of Flask, because its own way costs each request more than the counting."""

    def wsgi(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        began = time.monotonic()

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            method = environ["REQUEST_METHOD"]
            if method not in _METHODS:
                method = "other"
            route = _route(environ["werkzeug.request"])
            metrics.REQUESTS.add(1, route, method, status[:3])
            metrics.REQUEST_SECONDS.observe(time.monotonic() - began, route, method)
            return start_response(status, headers, *error)

        return serve(environ, start)

    return wsgi


def _begin() -> None:
    g.span = traces.request(request.method, _route(request), request.path, request.headers.get("traceparent"))
    g.span.__enter__()


def _answered(response: Response) -> Response:
    traces.tell("http.response.status_code", response.status_code)
    return response


def _end(error: BaseException | None) -> None:
    if "span" in g:
        g.pop("span").__exit__(None, None, None)


def _route(asked: Request) -> str:
    """As /messages/<message_id>: a path that somebody made up must not become a label."""
    found = asked.url_rule
    return "none" if found is None else found.rule
