"""The Flask application, wired from settings and a publisher."""

from flask import Flask
from flask_cors import CORS

from api import health, messages, problems
from bridge.publisher import Publisher
from tasks.database import database
from tasks.settings import Settings


def create_app(settings: Settings, publisher: Publisher) -> Flask:
    """Build the application. Connects nothing; tasks.database must be configured before requests come."""
    app = Flask(__name__)
    app.extensions["settings"] = settings
    app.extensions["publisher"] = publisher
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.register_blueprint(messages.blueprint)
    app.register_blueprint(health.blueprint)
    problems.register(app)
    if settings.cors_origins:
        CORS(app, origins=list(settings.cors_origins))
    app.teardown_request(_give_back_connection)
    return app


def _give_back_connection(error: BaseException | None) -> None:
    # Peewee opens a connection at the first query of a request; most requests need none.
    if not database.is_closed():
        database.close()
