"""Contestant (a): the same Flask under the same gunicorn, which returns 202 for a JSON body, without Kafka."""

import orjson
from flask import Flask, Response, request

from bootstrap.commands.serve import Gunicorn
from tasks.config import settings


class _Bare(Gunicorn):
    def load(self) -> Flask:
        app = Flask(__name__)

        @app.post("/messages")
        def post() -> Response:
            orjson.loads(request.get_data())
            return Response(b"{}\n", status=202, content_type="application/json")

        return app


def run(port: int) -> None:
    """Serve until SIGTERM."""
    _Bare(settings.load({"port": str(port), "address": "127.0.0.1"})).run()
