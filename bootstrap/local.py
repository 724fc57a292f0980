"""`local`: the servers, then init, then serve and consume as the Procfile says; ends all of it on Ctrl-C."""

import fcntl
import os
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import honcho.manager
import orjson
from honcho.environ import parse_procfile

from bootstrap import init
from bootstrap.stack import Stack, free_port, is_free
from tasks import settings as settings_module
from tasks.errors import LocalStackError
from tasks.settings import Settings, child_environment

_ROOT = Path(__file__).parent.parent
_READY_SECONDS = 60
_EXAMPLE = '{"text": "hello"}'


def run(settings: Settings, flags: Mapping[str, str]) -> None:
    """Run everything until Ctrl-C or SIGTERM; data stays for the next run. Raises LocalStackError."""
    began = time.time()
    environment = child_environment(flags)
    port = _port(settings, environment)
    directory = Path(settings.local_dir)
    fresh = not (directory / "data").exists()
    with _lock(directory), Stack(directory, environment) as stack:
        variables = {**environment, **stack.variables, "PORT": str(port)}
        init.run(settings_module.load({}, variables), {}, check=False)
        started = settings.local_started or began
        threading.Thread(target=_announce, args=(stack, port, started, fresh), daemon=True).start()
        _run_procfile(variables)


def _port(settings: Settings, environment: Mapping[str, str]) -> int:
    if is_free(settings.port):
        return settings.port
    if environment.get("PORT"):
        raise LocalStackError(f"port {settings.port} (--port / PORT) is in use; choose another")
    return free_port()


def _lock(directory: Path) -> IO[str]:
    """Held while we run: two stacks on the same data would destroy it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / "lock").open("w")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LocalStackError(f"a local stack is already running on {directory}; stop it first") from None
    except OSError as error:
        raise LocalStackError(f"cannot write to {directory}: {error.strerror}") from None
    return file


def _run_procfile(environment: dict[str, str]) -> None:
    honcho.manager.KILL_WAIT = 30  # longer than consume needs to finish its batches; honcho's 5 s would lose the log
    manager = honcho.manager.Manager()
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    for name, command in parse_procfile((_ROOT / "Procfile").read_text()).processes.items():
        manager.add_process(name, command, env={**environment, "PATH": path, "PYTHONUNBUFFERED": "1"}, cwd=str(_ROOT))
    manager.loop()


def _announce(stack: Stack, port: int, started: float, fresh: bool) -> None:
    """Say what runs where, once it does; on fresh data with a first message, to show that all of it works."""
    base = f"http://127.0.0.1:{port}"
    if not _until(lambda: bool(_get(f"{base}/health/ready"))):
        print(f"\nThe API does not answer on {base}; the lines above say why.\n", flush=True)
        return
    lines = [
        "",
        "-" * 78,
        f"  API          {base}    (health: {base}/health/ready)",
        f"  Kafka        {stack.variables['KAFKA_BROKERS']}",
        f"  PostgreSQL   {stack.variables['DATABASE_URL']}",
        f"  Redis        {stack.variables['REDIS_URL']}",
        f"  data, logs   {stack.directory}",
        "",
        "  Try it:",
        f"    curl -si {base}/messages -H 'Content-Type: application/json' -d '{_EXAMPLE}'",
        f"    curl -s {base}/messages",
        "",
    ]
    if fresh and _first_message(base):
        lines.append(f"  From nothing to the first message stored: {time.time() - started:.1f} s")
    lines += ["  Ctrl-C ends everything; the data stays. `make clean-data` wipes it.", "-" * 78, ""]
    print("\n".join(lines), flush=True)


def _first_message(base: str) -> bool:
    message_id = str(uuid.uuid4())
    body = orjson.dumps({"id": message_id, "type": "backend.started"})
    request = urllib.request.Request(f"{base}/messages", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30):
        pass
    return _until(lambda: message_id.encode() in _get(f"{base}/messages?type=backend.started"))


def _get(url: str) -> bytes:
    """The body of a 200; nothing for every other answer and while there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            body: bytes = response.read()
            return body
    except OSError:
        return b""


def _until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
