"""Starts the metrics and traces of a process, after its last fork."""

import os
import threading

from tasks.config.settings import Settings
from tasks.config.version import version
from tasks.errors import EXIT_FAILED
from tasks.observability import events, metrics, traces


def begin(settings: Settings, process: str) -> None:
    """Share metrics with the other processes of the pod, and trace if there is a collector."""
    traces.begin(settings.otel_exporter_otlp_endpoint, process, version())
    try:
        metrics.join(settings.prometheus_multiproc_dir, version())
    except OSError as error:
        events.emit("metrics.not_shared", reason=str(error))


def exit_if_a_thread_fails() -> None:
    """End the process when one of its threads raises: what the thread does is missing otherwise, and nobody notices."""

    def fail(raised: threading.ExceptHookArgs) -> None:
        events.emit("thread.failed", raised.exc_value, thread="" if raised.thread is None else raised.thread.name)
        os._exit(EXIT_FAILED)  # a thread that hangs would outlive sys.exit

    threading.excepthook = fail


def end() -> None:
    """Send the remaining spans."""
    traces.end()
