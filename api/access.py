"""Who may do what: API keys with scopes, and the headers that keep browsers careful."""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from flask import current_app, g, request
from flask_cors import CORS
from flask_openapi3 import APIBlueprint, OpenAPI

from api.problems import Problem
from tasks.parsing import ApiKey
from tasks.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Scope = Literal["read", "write", "operate"]
SCHEMES: dict[str, Any] = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key, where the server has any (API_KEYS)."}
}
SECURITY: list[dict[str, list[str]]] = [{"key": []}, {}]  # the empty one: a server without keys is open
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)


def needs(blueprint: APIBlueprint, scope: Scope) -> None:
    """Let nobody without `scope` ask for anything of `blueprint`."""
    blueprint.before_request(lambda: _check(scope))


def register(app: OpenAPI, settings: Settings) -> None:
    """Take the keys of `settings`, and send the security headers with every answer."""
    app.extensions["allowed"] = _judge(settings.api_keys)
    app.wsgi_app = _with_headers(app.wsgi_app)  # type: ignore[assignment, method-assign]


def allow_origins(app: OpenAPI, origins: Iterable[str]) -> None:
    """Let browsers call from `origins`, each exactly, or `*`."""
    # As patterns of our own: Flask-CORS takes text with brackets or asterisks for a pattern, and anchors none.
    exact = [origin if origin == "*" else re.compile(rf"{re.escape(origin)}\Z", re.IGNORECASE) for origin in origins]
    if exact:
        CORS(app, origins=exact)


def _judge(keys: tuple[ApiKey, ...]) -> Callable[[str | None, Scope], bool | None]:
    """Whether a key may; None: there is no such key. Every key is compared, in constant time."""

    def judge(given: str | None, scope: Scope) -> bool | None:
        if not keys:
            return True
        raw = (given or "").encode()
        known = [key for key in keys if hmac.compare_digest(key.secret.encode(), raw)]
        return any(scope in key.scopes for key in known) if known else None

    return judge


def _check(scope: Scope) -> None:
    if request.method == "OPTIONS":
        return  # a browser asks without a key whether it may send one (Fetch Standard, "CORS-preflight fetch")
    environ = request.environ
    kind, _, key = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    given = key.strip() if kind.lower() == "bearer" else environ.get("HTTP_X_API_KEY")
    if given:
        g.client = hashlib.sha256(given.encode()).hexdigest()  # whose Idempotency-Keys they are
    allowed = current_app.extensions["allowed"](given, scope)
    if allowed is None:
        raise Problem(401, "unauthorized", "An API key is needed", "Send a valid key: Authorization: Bearer KEY.")
    if not allowed:
        raise Problem(403, "forbidden", "The API key may not do this", f"This needs a key with the scope {scope}.")


def _with_headers(serve: "WSGIApplication") -> "WSGIApplication":
    """Around all of Flask, because its own way costs each request more than the rest of this file."""

    def wsgi(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            own = {name for name, _ in headers}
            return start_response(status, headers + [item for item in _HEADERS if item[0] not in own], *error)

        return serve(environ, start)

    return wsgi
