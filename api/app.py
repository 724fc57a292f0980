"""The Flask application, wired from settings and a publisher."""

from collections.abc import Callable
from typing import Any

from flask import Flask, Request, request
from flask.sessions import NullSession, SessionInterface
from flask_openapi3 import APIBlueprint, Info, OpenAPI
from werkzeug.routing import MapAdapter

from api import (
    access,
    dead_letters,
    documents,
    exporting,
    health,
    limits,
    measuring,
    problems,
    publishing,
    reading,
    statistics,
    streaming,
    tail,
)
from bridge.lag import Lags
from bridge.publisher import Publisher
from tasks.database import database
from tasks.settings import Settings


class _App(OpenAPI):
    """Flask without what costs each request and serves none of ours: asynchronous views, sessions, hosts."""

    class _NoSessions(SessionInterface):
        _none = NullSession()

        def open_session(self, app: Flask, request: Request) -> NullSession:
            return self._none

    session_interface = _NoSessions()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        # No route depends on a host, a subdomain or a websocket, which Flask's own way finds out first.
        if request is None:
            return None
        query = request.query_string.decode("latin-1")
        return MapAdapter(self.url_map, request.host, "/", "", request.scheme, request.path, request.method, query)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


def create_app(settings: Settings, publisher: Publisher) -> OpenAPI:
    """Build the application. Connects nothing; tasks.database must be configured before requests come."""
    app = _App(
        __name__,
        info=Info(title="Message backend", version="0.1.0", description=documents.ABOUT),
        security_schemes=access.SCHEMES,
        doc_ui=False,
        validation_error_status=400,
        validation_error_model=problems.ProblemShape,
        validation_error_callback=problems.bad_parameters,
    )
    app.extensions["settings"] = settings
    app.extensions["publisher"] = publisher
    app.extensions["lags"] = Lags(settings)
    app.extensions["tail"] = tail.Tail()
    app.extensions["serving"] = lambda: True  # what takes long ends when it says no
    for blueprint in (
        publishing.blueprint,
        streaming.blueprint,
        exporting.blueprint,
        reading.blueprint,
        health.blueprint,
        measuring.blueprint,
        statistics.blueprint,
        dead_letters.blueprint,
    ):
        _add(app, blueprint)
    app.register_blueprint(documents.blueprint)
    measuring.register(app)
    limits.register(app, settings)
    access.register(app, settings)
    problems.register(app)
    health.register(app, publisher)
    access.allow_origins(app, settings.cors_origins)
    app.before_request(_refuse_nul)
    app.teardown_request(_give_back_connection)
    return app


def _add(app: OpenAPI, blueprint: APIBlueprint) -> None:
    # The library forgets the methods that another blueprint has on the same path.
    before = dict(app.paths)
    app.register_api(blueprint)
    for path in before.keys() & blueprint.paths.keys():
        new = app.paths[path]
        app.paths[path] = before[path].model_copy(update={name: getattr(new, name) for name in new.model_fields_set})


def _refuse_nul() -> None:
    if "%00" not in request.environ["QUERY_STRING"]:
        return
    for name, value in request.args.items():
        if "\0" in name + value:
            raise problems.bad_parameter(name, "U+0000 stands in no message, so nothing can be asked with it.")


def _give_back_connection(error: BaseException | None) -> None:
    # Peewee opens a connection at the first query of a request; most requests need none.
    if not database.is_closed():
        database.close()
