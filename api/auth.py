"""API keys and their scopes, and the origins that browsers may call from."""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from flask import g, request
from flask_cors import CORS
from flask_openapi3 import APIBlueprint, OpenAPI

from api.keys import Scope
from api.problems import Problem
from api.services import services

SCHEMES: dict[str, Any] = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key, if the server has any (API_KEYS)."}
}
SECURITY: list[dict[str, list[str]]] = [{"key": []}, {}]  # the empty one: a server without API keys


def needs(blueprint: APIBlueprint, scope: Scope) -> None:
    """Require `scope` for every request to `blueprint`."""
    blueprint.before_request(lambda: _check(scope))


def allow_origins(app: OpenAPI, origins: Iterable[str]) -> None:
    """Let browsers call from exactly these `origins`, or from all with `*`."""
    # Patterns of our own: Flask-CORS treats text with brackets or asterisks as a pattern and does not anchor it.
    exact = [origin if origin == "*" else re.compile(rf"{re.escape(origin)}\Z", re.IGNORECASE) for origin in origins]
    if exact:
        CORS(app, origins=exact)


def _check(scope: Scope) -> None:
    if request.method == "OPTIONS":
        return  # a browser sends its preflight request without a key (Fetch Standard, "CORS-preflight fetch")
    environ = request.environ
    kind, _, key = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    secret = key.strip() if kind.lower() == "bearer" else environ.get("HTTP_X_API_KEY")
    if secret:
        g.client = hashlib.sha256(secret.encode()).hexdigest()  # Idempotency-Keys belong to a client
    allowed = services().authorizer.allows(secret, scope)
    if allowed is None:
        raise Problem(401, "unauthorized", "An API key is required", "Send a valid key: Authorization: Bearer KEY.")
    if not allowed:
        raise Problem(403, "forbidden", "The API key lacks a scope", f"This needs a key with the scope {scope}.")
