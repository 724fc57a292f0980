"""A mail service for tests, which sends nothing. It listens on this machine."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


class MailService(ThreadingHTTPServer):
    """Answers with each status of `failures` once for each recipient, in order, and then with 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.failures: dict[str, list[int]] = {}
        self.received: list[tuple[str, str]] = []  # recipient and idempotency key of each request

    def __enter__(self) -> "MailService":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.shutdown()
        self.server_close()

    def keys(self, recipient: str) -> list[str]:
        """The idempotency keys of the requests for a recipient."""
        return [key for other, key in self.received if other == recipient]


class _Request(BaseHTTPRequestHandler):
    server: MailService

    def do_POST(self) -> None:
        mail = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received.append((mail["to"], self.headers["Idempotency-Key"]))
        failures = self.server.failures.get(mail["to"])
        self.send_response(failures.pop(0) if failures else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Write nothing."""
