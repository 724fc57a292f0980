"""A span for each request, if tracing is on."""

from flask import Flask, Response, g, request

from api import wsgi
from tasks.observability import traces


def register(app: Flask) -> None:
    """Trace every request to `app`. Register it before anything that may reject a request."""
    if traces.enabled():
        app.before_request(_start)
        app.after_request(_set_status)
        app.teardown_request(_end)


def _start() -> None:
    g.span = traces.request(request.method, wsgi.route(request), request.path, request.headers.get("traceparent"))
    g.span.__enter__()


def _set_status(response: Response) -> Response:
    traces.tell("http.response.status_code", response.status_code)
    return response


def _end(error: BaseException | None) -> None:
    if "span" in g:
        g.pop("span").__exit__(None, None, None)
