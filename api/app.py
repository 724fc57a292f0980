"""The Flask application, wired from settings and a publisher."""

from collections.abc import Callable

from flask import request
from flask_openapi3 import APIBlueprint, Info, OpenAPI

from api import auth, problems, services, tracing, wsgi
from api.feed import Feed
from api.keys import Authorizer
from api.limits import Limits
from api.readiness import Readiness
from api.services import Services
from api.views import calls, dead_letters, docs, export, health, messages, metrics, publish, runs, statistics, stream
from api.wsgi import Application
from bridge.kafka.lag import Lags
from bridge.kafka.publisher import Publisher
from tasks.config.settings import Settings
from tasks.config.version import version
from tasks.store.connection import database


def create_app(settings: Settings, publisher: Publisher, serving: Callable[[], bool] = lambda: True) -> OpenAPI:
    """Build the application; `serving` becomes False when the process is asked to stop.

    Connects nothing: `tasks.store.connection` must be configured before the first request.
    """
    app = Application(
        __name__,
        info=Info(title="Message backend", version=version(), description=docs.ABOUT),
        security_schemes=auth.SCHEMES,
        doc_ui=False,
        validation_error_status=400,
        validation_error_model=problems.ProblemShape,
        validation_error_callback=problems.bad_parameters,
    )
    services.register(
        app,
        Services(
            settings=settings,
            publisher=publisher,
            lags=Lags(settings),
            feed=Feed(),
            limits=Limits.of(settings),
            authorizer=Authorizer(settings.api_keys),
            readiness=Readiness(publisher),
            serving=serving,
        ),
    )
    for blueprint in _BLUEPRINTS:
        _add(app, blueprint)
    app.register_blueprint(docs.blueprint)
    wsgi.wrap(app)
    tracing.register(app)
    problems.register(app)
    auth.allow_origins(app, settings.cors_origins)
    app.before_request(_reject_nul)
    app.teardown_request(_return_connection)
    return app


_BLUEPRINTS = (
    publish.blueprint,
    stream.blueprint,
    export.blueprint,
    messages.blueprint,
    health.blueprint,
    metrics.blueprint,
    statistics.blueprint,
    dead_letters.blueprint,
    runs.blueprint,
    calls.calling,
    calls.looking,
)


def _add(app: OpenAPI, blueprint: APIBlueprint) -> None:
    # The library drops the methods that an earlier blueprint has on the same path.
    before = dict(app.paths)
    app.register_api(blueprint)
    for path in before.keys() & blueprint.paths.keys():
        new = app.paths[path]
        app.paths[path] = before[path].model_copy(update={name: getattr(new, name) for name in new.model_fields_set})


def _reject_nul() -> None:
    if "%00" not in request.environ["QUERY_STRING"]:
        return
    for name, value in request.args.items():
        if "\0" in name + value:
            raise problems.bad_parameter(name, "Query parameters must not contain NUL (U+0000).")


def _return_connection(error: BaseException | None) -> None:
    # Peewee opens a connection at the first query of a request; most requests make none.
    if not database.is_closed():
        database.close()
