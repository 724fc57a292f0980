"""`consume`: becomes supervisord, which runs the bridge, the Celery workers, and a Redis if none is given."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap import binaries, keeper, scraping
from bridge.consumer import Bridge
from tasks import database, observing, telemetry
from tasks.app import create_app, run_worker
from tasks.errors import ConfigurationError, LocalStackError
from tasks.settings import Settings, child_environment

_REDIS_BINARIES = ("valkey-server", "redis-server")
_REDIS_MEMORY = "128mb"  # a few times what may be in flight; full, it refuses and the bridge waits
_LINES_OF_OURS = ("stdout_logfile=/dev/stdout", "stdout_logfile_maxbytes=0")
_LINES_FOR_THE_KEEPER = ("stdout_logfile=NONE", "stdout_events_enabled=true")


@dataclass(frozen=True)
class Program:
    """A program of the pod. Lower priorities start earlier and stop later."""

    name: str
    command: str
    priority: int
    stop_seconds: int
    ours: bool = True  # writes lines in our format


def run(settings: Settings, flags: Mapping[str, str], only: str | None) -> None:
    """Run the whole pod, or one part of it. Raises ConfigurationError."""
    if only is not None and settings.metrics_port:
        settings = scraping.shared(settings)
        scraping.show(settings)
    if only == "bridge":
        observing.begin(settings, "bridge")
        telemetry.emit("process.started", topics=settings.kafka_topics, group=settings.kafka_group_id)
        database.configure(settings.database_url, "bridge", connections=1)
        Bridge(settings, create_app(settings)).run()
        telemetry.emit("process.stopped")
    elif only == "worker":
        run_worker(settings)
    else:
        _become_supervisor(settings, child_environment(flags))


def programs(settings: Settings, directory: Path) -> Iterator[Program]:
    """What runs in the pod. SIGTERM ends the bridge first, so that its batches still find workers and Redis."""
    if settings.redis_url is None:
        yield Program("redis", _redis_command(directory), priority=1, stop_seconds=5, ours=False)
    # No "consume" in this command line: a liveness probe greps for it, and means the bridge.
    yield Program("worker", f"{sys.executable} -m tasks", priority=2, stop_seconds=5)
    yield Program("bridge", f"{sys.executable} -m bootstrap consume --only bridge", priority=3, stop_seconds=18)


def configuration(settings: Settings, directory: Path) -> str:
    """supervisord's configuration file. Its children get settings by environment, never as arguments."""
    sections = [
        "[supervisord]",
        "nodaemon=true",
        "logfile=/dev/null",
        "logfile_maxbytes=0",
        f"pidfile={directory}/supervisord.pid",
        f"childlogdir={directory}",
        "silent=true",  # the keeper says what is worth a line, in our format
        *(["user=root"] if os.geteuid() == 0 else []),  # supervisord warns when run as root unasked
    ]
    for program in programs(settings, directory):
        sections += [
            f"[program:{program.name}]",
            f"command={program.command}".replace("%", "%%"),
            f"priority={program.priority}",
            f"stopwaitsecs={program.stop_seconds}",
            "startsecs=2",
            "startretries=5",  # with supervisord's growing pauses: 15 s
            "autorestart=true",
            "stopasgroup=false",
            "killasgroup=true",
            "redirect_stderr=true",
            *(_LINES_OF_OURS if program.ours else _LINES_FOR_THE_KEEPER),
        ]
    sections += [
        # A program that cannot be started any more ends the pod, so that Kubernetes sees it.
        "[eventlistener:keeper]",
        f"command={sys.executable} -m bootstrap.keeper {directory}".replace("%", "%%"),
        f"events={keeper.EVENTS}",
        "priority=0",
        "buffer_size=100",
        "stderr_logfile=/dev/stdout",
        "stderr_logfile_maxbytes=0",
    ]
    return "\n".join(sections) + "\n"


def _become_supervisor(settings: Settings, environment: dict[str, str]) -> None:
    directory = Path(tempfile.mkdtemp(prefix="backend-"))
    file = directory / "supervisord.conf"
    file.write_text(configuration(settings, directory))
    if settings.redis_url is None:
        environment["REDIS_URL"] = f"unix://{directory}/redis.sock"
    if settings.metrics_port and settings.prometheus_multiproc_dir is None:
        environment["PROMETHEUS_MULTIPROC_DIR"] = f"{directory}/metrics"
    # exec, so that signals reach supervisord itself; its command line must not hold "consume".
    os.chdir(Path(__file__).parent.parent)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "supervisor.supervisord", "-c", str(file)], environment)


def _redis_command(directory: Path) -> str:
    options = f"--port 0 --unixsocket {directory}/redis.sock --unixsocketperm 700 --dir {directory}"
    memory = f"--maxmemory {_REDIS_MEMORY} --maxmemory-policy noeviction"
    return f"{_redis_binary()} {options} {memory} --save '' --appendonly no --loglevel warning"


def _redis_binary() -> str:
    for name in _REDIS_BINARIES:
        found = shutil.which(name)
        if found is not None:
            return found
    try:
        return str(binaries.valkey())
    except LocalStackError:
        names = " or ".join(_REDIS_BINARIES)
        raise ConfigurationError(f"install {names}, or set --redis-url / REDIS_URL") from None
