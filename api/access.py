"""Who may do what: API keys with scopes, and the headers that keep browsers careful."""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Literal

from flask import Response, current_app, g, request
from flask_openapi3 import APIBlueprint, OpenAPI

from api.problems import Problem
from tasks.settings import ApiKey, Settings

Scope = Literal["read", "write", "operate"]
SCHEMES: dict[str, Any] = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key, where the server has any (API_KEYS)."}
}
SECURITY: list[dict[str, list[str]]] = [{"key": []}, {}]  # the empty one: a server without keys is open
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def needs(blueprint: APIBlueprint, scope: Scope) -> None:
    """Let nobody without `scope` ask for anything of `blueprint`."""
    blueprint.before_request(lambda: _check(scope))


def register(app: OpenAPI, settings: Settings) -> None:
    """Take the keys of `settings`, and send the security headers with every answer."""
    app.extensions["allowed"] = _judge(settings.api_keys)
    app.after_request(_add_headers)


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
    kind, _, key = request.headers.get("Authorization", "").partition(" ")
    given = key.strip() if kind.lower() == "bearer" else request.headers.get("X-API-Key")
    g.client = hashlib.sha256(given.encode()).hexdigest() if given else ""  # whose Idempotency-Keys they are
    allowed = current_app.extensions["allowed"](given, scope)
    if allowed is None:
        raise Problem(401, "unauthorized", "An API key is needed", "Send a valid key: Authorization: Bearer KEY.")
    if not allowed:
        raise Problem(403, "forbidden", "The API key may not do this", f"This needs a key with the scope {scope}.")


def _add_headers(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if response.status_code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
