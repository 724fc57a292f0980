"""Begins what lets a process be watched, its metrics and traces, once it forks no more."""

from tasks import metrics, telemetry, traces
from tasks.settings import Settings
from tasks.version import version


def begin(settings: Settings, process: str) -> None:
    """Count with the other processes of the pod, and trace if there is a collector."""
    traces.begin(settings.otel_exporter_otlp_endpoint, process, version())
    try:
        metrics.join(settings.prometheus_multiproc_dir, version())
    except OSError as error:
        telemetry.emit("metrics.unshared", reason=str(error))


def end() -> None:
    """Send what is left of traces."""
    traces.end()
