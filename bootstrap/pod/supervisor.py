"""The programs of a consumer pod, and supervisord's configuration for them (its manual, "Configuration File")."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bootstrap.localstack import binaries
from bootstrap.pod import listener
from tasks import user_modules
from tasks.config.settings import Settings
from tasks.errors import ConfigurationError, LocalStackError

_REDIS_BINARIES = ("valkey-server", "redis-server")
_REDIS_MEMORY = "128mb"  # several times the bytes in flight; when it is full, it rejects writes and the bridge waits
_OWN_OUTPUT = ("stdout_logfile=/dev/stdout", "stdout_logfile_maxbytes=0")
_OUTPUT_TO_LISTENER = ("stdout_logfile=NONE", "stdout_events_enabled=true")


@dataclass(frozen=True)
class Program:
    """A program of the pod. A lower priority starts earlier and stops later."""

    name: str
    command: str
    priority: int
    stop_seconds: int
    own: bool = True  # writes log lines in our format


def programs(settings: Settings, directory: Path) -> Iterator[Program]:
    """The programs of the pod. On SIGTERM the bridge stops first, so that its batches still find workers and Redis."""
    if settings.redis_url is None:
        yield Program("redis", _redis_command(directory), priority=1, stop_seconds=5, own=False)
    # This command line must not contain "consume": a liveness probe greps for it and must find only the bridge.
    yield Program("worker", f"{sys.executable} -m tasks", priority=2, stop_seconds=5)
    if settings.tasks:
        yield Program("tasks", f"{sys.executable} -m tasks execute", priority=2, stop_seconds=18)
    yield Program("bridge", f"{sys.executable} -m bootstrap consume --only bridge", priority=3, stop_seconds=18)


def configuration(settings: Settings, directory: Path) -> str:
    """supervisord's configuration file. Its programs get their settings from the environment, never as arguments."""
    sections = [
        "[supervisord]",
        "nodaemon=true",
        "logfile=/dev/null",
        "logfile_maxbytes=0",
        f"pidfile={directory}/supervisord.pid",
        f"childlogdir={directory}",
        "silent=true",  # the listener logs what matters, in our format
        *(["user=root"] if os.geteuid() == 0 else []),  # without it supervisord warns about running as root
    ]
    for program in programs(settings, directory):
        sections += [
            f"[program:{program.name}]",
            f"command={program.command}".replace("%", "%%"),
            f"priority={program.priority}",
            f"stopwaitsecs={program.stop_seconds}",
            "startsecs=2",
            "startretries=5",  # 15 s, as supervisord waits longer before each retry
            "autorestart=true",
            "stopasgroup=false",
            "killasgroup=true",
            "redirect_stderr=true",
            *(_OWN_OUTPUT if program.own else _OUTPUT_TO_LISTENER),
        ]
    sections += [
        # The listener ends a pod whose program keeps failing, so that Kubernetes sees it.
        "[eventlistener:listener]",
        f"command={sys.executable} -m bootstrap.pod.listener {directory}".replace("%", "%%"),
        f"events={listener.EVENTS}",
        "priority=0",
        "buffer_size=100",
        "stderr_logfile=/dev/stdout",
        "stderr_logfile_maxbytes=0",
    ]
    return "\n".join(sections) + "\n"


def become(settings: Settings, environment: dict[str, str]) -> NoReturn:
    """Replace this process by supervisord. Raises ConfigurationError when no Redis can be started."""
    directory = Path(tempfile.mkdtemp(prefix="backend-"))
    file = directory / "supervisord.conf"
    file.write_text(configuration(settings, directory))
    if settings.redis_url is None:
        environment["REDIS_URL"] = f"unix://{directory}/redis.sock"
    if settings.metrics_port and settings.prometheus_multiproc_dir is None:
        environment["PROMETHEUS_MULTIPROC_DIR"] = f"{directory}/metrics"
    environment = user_modules.found_by_children(environment)
    # exec, so that signals reach supervisord itself; its command line must not contain "consume".
    os.chdir(Path(__file__).parents[2])
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "supervisor.supervisord", "-c", str(file)], environment)


def _redis_command(directory: Path) -> str:
    options = f"--port 0 --unixsocket {directory}/redis.sock --unixsocketperm 700 --dir {directory}"
    memory = f"--maxmemory {_REDIS_MEMORY} --maxmemory-policy noeviction"
    return f"{_redis_binary()} {options} {memory} --save '' --appendonly no --loglevel warning"


def _redis_binary() -> str:
    for name in _REDIS_BINARIES:
        path = shutil.which(name)
        if path is not None:
            return path
    try:
        return str(binaries.valkey())
    except LocalStackError:
        names = " or ".join(_REDIS_BINARIES)
        raise ConfigurationError(f"install {names}, or set --redis-url / REDIS_URL") from None
