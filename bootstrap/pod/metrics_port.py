"""The directory in which the processes of a pod share their metrics, and the port that exports them."""

import atexit
import os
import shutil
import tempfile
from dataclasses import replace

from prometheus_client import start_http_server

from tasks.config.setting import flag
from tasks.config.settings import Settings
from tasks.errors import ConfigurationError
from tasks.observability import metrics

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # the library reads the variable, so this process must have it


def shared(settings: Settings) -> Settings:
    """The settings with a directory for metrics: the pod's, or a new one, which this process removes at exit."""
    directory = settings.prometheus_multiproc_dir
    if directory is None:
        directory = tempfile.mkdtemp(prefix="backend-metrics-")
        atexit.register(_remove, directory, os.getpid())
    os.environ[_VARIABLE] = directory
    return replace(settings, prometheus_multiproc_dir=directory)


def show(settings: Settings) -> None:
    """Export the metrics of the whole pod on the metrics port, in a thread. Raises ConfigurationError."""
    registry = metrics.readable(settings.prometheus_multiproc_dir)
    try:
        server, _ = start_http_server(settings.metrics_port, settings.address, registry)
    except OSError as error:
        where = f"{settings.address}:{settings.metrics_port} ({flag('address')}, {flag('metrics_port')} / METRICS_PORT)"
        raise ConfigurationError(f"cannot listen on {where}: {error.strerror}") from None
    # A child that outlives this process must not keep the port.
    os.register_at_fork(after_in_child=server.socket.close)


def _remove(directory: str, owner: int) -> None:
    if os.getpid() == owner:  # children have this at their end too
        shutil.rmtree(directory, ignore_errors=True)
