"""Starts the metrics and traces of a process, after its last fork."""

from tasks.config.settings import Settings
from tasks.config.version import version
from tasks.observability import events, metrics, traces


def begin(settings: Settings, process: str) -> None:
    """Share metrics with the other processes of the pod, and trace if there is a collector."""
    traces.begin(settings.otel_exporter_otlp_endpoint, process, version())
    try:
        metrics.join(settings.prometheus_multiproc_dir, version())
    except OSError as error:
        events.emit("metrics.not_shared", reason=str(error))


def end() -> None:
    """Send the remaining spans."""
    traces.end()
