"""`local`: runs the servers, init, serve and consume on this machine, until Ctrl-C."""

import http.client
import os
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import honcho.manager
import orjson

from bootstrap.commands import init
from bootstrap.localstack import running
from bootstrap.localstack.ports import LOOPBACK, free_port, is_free
from bootstrap.localstack.stack import Stack
from tasks import user_modules
from tasks.config import settings as settings_module
from tasks.config.environment import child_environment
from tasks.config.parsers import ApiKey
from tasks.config.settings import Settings
from tasks.errors import LocalStackError

PROCESSES = ("serve", "consume")  # as in the Procfile
_ROOT = Path(__file__).parents[2]  # the checkout, or the site-packages of a wheel
_READY_SECONDS = 60
_ANSWER_SECONDS = 15
_EXAMPLE = '{"text": "hello"}'


def run(settings: Settings, flags: Mapping[str, str]) -> None:
    """Run everything until Ctrl-C or SIGTERM; data stays for the next run. Raises LocalStackError."""
    began = time.time()
    environment = child_environment(flags)
    # Without API_KEYS the API is open, so by default other machines must not reach it.
    address = environment.get("ADDRESS", LOOPBACK)
    port = _port(settings, environment, address)
    directory = Path(settings.local_dir)
    fresh = not (directory / "data").exists()
    with running.locked(directory), Stack(directory, environment) as stack:
        variables = {**environment, **stack.variables, "ADDRESS": address, "PORT": str(port)}
        running.announce(directory, stack.variables)
        init.run(settings_module.load({}, variables), {}, check=False)
        started = settings.local_started or began
        api = _Api(address, port, settings.api_keys)
        threading.Thread(target=_announce, args=(stack, api, started, fresh), daemon=True).start()
        _run_procfile(user_modules.found_by_children(variables))


def _port(settings: Settings, environment: Mapping[str, str], address: str) -> int:
    try:
        if is_free(settings.port, address):
            return settings.port
    except OSError as error:
        where = f"{address}:{settings.port} (--address / ADDRESS, --port / PORT)"
        raise LocalStackError(f"cannot listen on {where}: {error.strerror}") from None
    if environment.get("PORT"):
        raise LocalStackError(f"port {settings.port} (--port / PORT) is in use; choose another")
    return free_port()


def _run_procfile(environment: dict[str, str]) -> None:
    honcho.manager.KILL_WAIT = 30  # longer than consume needs to finish its batches; honcho's 5 s would lose the log
    manager = honcho.manager.Manager()
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    for name in PROCESSES:
        command = f"python -m bootstrap {name}"
        manager.add_process(name, command, env={**environment, "PATH": path, "PYTHONUNBUFFERED": "1"}, cwd=str(_ROOT))
    manager.loop()


class _Api:
    """The API of this run, called with the user's keys."""

    def __init__(self, address: str, port: int, keys: tuple[ApiKey, ...]) -> None:
        self._listens = f"{address}:{port}"
        self._keys = keys
        self.url = f"http://{LOOPBACK if address == '0.0.0.0' else address}:{port}"

    def lines(self) -> list[str]:
        """The lines of the banner: addresses, and how to try the API. They never contain a key."""
        key = " -H 'Authorization: Bearer KEY'" if self._keys else ""
        return [
            f"  API          {self.url}    (listens on {self._listens})",
            f"  health       {self.url}/health/ready",
            "",
            "  Try it:" if not self._keys else "  Try it, with one of API_KEYS in place of KEY:",
            f"    curl -si {self.url}/messages{key} -H 'Content-Type: application/json' -d '{_EXAMPLE}'",
            f"    curl -s {self.url}/messages{key}",
        ]

    def ready(self) -> bool:
        """Whether it responds and reaches Kafka."""
        return bool(self._ask("/health/ready", {}))

    def first_message(self) -> bool:
        """Send a message and wait until it is stored. False if that fails or no key allows it."""
        write, read = self._authorization("write"), self._authorization("read")
        if write is None or read is None:
            return False
        message_id = str(uuid.uuid4())
        body = orjson.dumps({"id": message_id, "type": "backend.started"})
        if not self._ask("/messages", {"Content-Type": "application/json", **write}, body):
            return False
        return _until(lambda: message_id.encode() in self._ask("/messages?type=backend.started", read))

    def _authorization(self, scope: str) -> dict[str, str] | None:
        """The headers of a request that needs `scope`; None if no key has it."""
        if not self._keys:
            return {}
        secret = next((key.secret for key in self._keys if scope in key.scopes), None)
        return None if secret is None else {"Authorization": f"Bearer {secret}"}

    def _ask(self, path: str, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
        """The body of a successful response; empty after any error."""
        request = urllib.request.Request(f"{self.url}{path}", body, dict(headers))
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as response:
                content: bytes = response.read()
                return content
        except (OSError, http.client.HTTPException, ValueError):  # ValueError: a header cannot contain such a key
            return b""


def _announce(stack: Stack, api: _Api, started: float, fresh: bool) -> None:
    """Print the addresses once the API is ready; with new data send a first message, to show that everything works."""
    if not _until(api.ready):
        print(f"\nThe API does not respond on {api.url}; the lines above say why.\n", flush=True)
        return
    stored = fresh and api.first_message()
    where, *rest = api.lines()
    lines = [
        "",
        "-" * 78,
        where,
        f"  Kafka        {stack.variables['KAFKA_BROKERS']}",
        f"  PostgreSQL   {stack.variables['DATABASE_URL']}",
        f"  Redis        {stack.variables['REDIS_URL']}",
        f"  data, logs   {stack.directory}",
        *rest,
        "",
    ]
    if stored:
        lines.append(f"  From nothing to the first message stored: {time.time() - started:.1f} s")
    lines += ["  Ctrl-C ends everything; the data stays. `make clean-data` wipes it.", "-" * 78, ""]
    print("\n".join(lines), flush=True)


def _until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
