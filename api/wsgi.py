"""Where the API bypasses Flask: each piece says what Flask's own way costs a request."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, request
from flask.sessions import NullSession, SessionInterface
from flask_openapi3 import OpenAPI
from werkzeug.routing import MapAdapter

from tasks.observability import metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)


class Application(OpenAPI):
    """Flask without sessions, subdomains and asynchronous views, which cost every request and which no route uses."""

    class _NoSessions(SessionInterface):
        _none = NullSession()

        def open_session(self, app: Flask, request: Request) -> NullSession:
            return self._none

    session_interface = _NoSessions()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Called by Flask for each request. Its own version first resolves subdomains, hosts and websockets."""
        if request is None:
            return None
        query = request.query_string.decode("latin-1")
        return MapAdapter(self.url_map, request.host, "/", "", request.scheme, request.path, request.method, query)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Called by Flask for each view. Its own version looks whether the view is a coroutine."""
        return func


class CompleteResponse(Response):
    """A response whose body is complete."""

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Send it. Flask's own version inspects the response once more."""
        start_response(self.status, self.headers.to_wsgi_list())
        return self.iter_encoded() if environ["REQUEST_METHOD"] != "HEAD" else ()


def current_request() -> Request:
    """The request itself. Flask's proxy looks it up again at every access."""
    current: Request = request._get_current_object()  # type: ignore[attr-defined]
    return current


def wrap(app: Flask) -> None:
    """Count every request and add the security headers, outside Flask, because its hooks cost more than the work."""
    app.wsgi_app = _with_security_headers(_counted(app.wsgi_app))  # type: ignore[assignment, method-assign]


def route(current: Request) -> str:
    """The route of a request, such as /messages/<message_id>: a label must not contain text of a client."""
    rule = current.url_rule
    return "none" if rule is None else rule.rule


def _counted(serve: "WSGIApplication") -> "WSGIApplication":
    def wsgi(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        began = time.monotonic()

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            method = environ["REQUEST_METHOD"]
            if method not in _METHODS:
                method = "other"
            path = route(environ["werkzeug.request"])
            metrics.REQUESTS.add(1, path, method, status[:3])
            metrics.REQUEST_SECONDS.observe(time.monotonic() - began, path, method)
            return start_response(status, headers, *error)

        return serve(environ, start)

    return wsgi


def _with_security_headers(serve: "WSGIApplication") -> "WSGIApplication":
    def wsgi(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            names = {name for name, _ in headers}
            missing = [header for header in _SECURITY_HEADERS if header[0] not in names]
            return start_response(status, headers + missing, *error)

        return serve(environ, start)

    return wsgi
