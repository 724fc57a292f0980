"""`consume`: the whole consumer pod under supervisord, or one part of it."""

from collections.abc import Mapping

from bootstrap.pod import metrics_port, supervisor
from bridge import process
from tasks.config.settings import Settings, child_environment
from tasks.observability import events, setup
from tasks.store import connection
from tasks.worker.app import create_app, run_worker


def run(settings: Settings, flags: Mapping[str, str], only: str | None) -> None:
    """Run the whole pod, or one part of it. Raises ConfigurationError."""
    if only is not None and settings.metrics_port:
        settings = metrics_port.shared(settings)
        metrics_port.show(settings)
    if only == "bridge":
        setup.begin(settings, "bridge")
        events.emit("process.started", topics=settings.kafka_topics, group=settings.kafka_group_id)
        connection.configure(settings.database_url, "bridge", connections=2)
        process.run(settings, create_app(settings))
        events.emit("process.stopped")
    elif only == "worker":
        run_worker(settings)
    else:
        supervisor.become(settings, child_environment(flags))
