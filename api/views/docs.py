"""GET /openapi.json: the description made from the views' types. GET /docs: a page for it, without other sites."""

import copy
from importlib.resources import files
from typing import Any

import orjson
from flask import Blueprint, Response, current_app, send_from_directory

from api import slots
from api.problems import ProblemShape
from api.services import services

blueprint = Blueprint("documents", __name__)
slots.limit(blueprint, "pages")

ABOUT = """Accepts messages, stores each in PostgreSQL exactly once, and reads them.

Errors are problem JSON (RFC 9457); `type` ends in a name that docs/http-api.md explains."""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Message backend</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/docs/css/swagger-ui.css"></head>
<body><div id="page"></div>
<script src="/docs/js/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script></body>
</html>
"""
_START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null});\n'
_MAY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; frame-ancestors 'none'"
)


@blueprint.get("/openapi.json")
def description() -> Response:
    """The description of this API, OpenAPI 3.1."""
    return Response(orjson.dumps(described()), content_type="application/json")


@blueprint.get("/docs")
def page() -> Response:
    """The description as a page to read and try."""
    return Response(_PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": _MAY})


@blueprint.get("/docs/start.js")
def start() -> Response:
    """The script that starts the page: a file, because the page's policy allows no inline scripts."""
    return Response(_START, content_type="text/javascript")


@blueprint.get("/docs/<any(css, js):kind>/<name>")
def asset(kind: str, name: str) -> Response:
    """A file of Swagger UI, from its package."""
    directory = files("flask_openapi3_swagger") / "templates" / "swagger" / kind
    return send_from_directory(str(directory), name, max_age=3600)


def described() -> dict[str, Any]:
    """The description as a dictionary. The library knows only successful responses; all others are problems."""
    document: dict[str, Any] = copy.deepcopy(current_app.api_doc)  # type: ignore[attr-defined]
    problem = {"schema": {"$ref": f"#/components/schemas/{ProblemShape.__name__}"}}
    problem_response = {"description": "A problem", "content": {"application/problem+json": problem}}
    for path in document["paths"].values():
        for method, operation in path.items():
            kept = {
                status: description for status, description in operation["responses"].items() if status.startswith("2")
            }
            operation["responses"] = {**kept, "4XX": problem_response, "5XX": problem_response}
            for parameter in operation.get("parameters", []):
                if method == "post" and parameter["name"] == "topic":
                    parameter["schema"] = {"type": "string", "enum": list(services().settings.kafka_topics)}
    return document
