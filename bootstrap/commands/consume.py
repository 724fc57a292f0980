"""`consume`: the whole consumer pod under supervisord, or one part of it."""

from collections.abc import Mapping

from bootstrap.pod import metrics_port, supervisor
from bridge import process
from tasks import user_modules
from tasks.config.environment import child_environment
from tasks.config.settings import Settings
from tasks.errors import ConfigurationError
from tasks.observability import events, setup
from tasks.store import connection
from tasks.worker import task_app
from tasks.worker.app import create_app, run_worker


def run(settings: Settings, flags: Mapping[str, str], only: str | None) -> None:
    """Run the whole pod, or one part of it. Raises ConfigurationError."""
    if only is not None and settings.metrics_port:
        settings = metrics_port.shared(settings)
        metrics_port.show(settings)
    if only == "bridge":
        setup.begin(settings, "bridge")
        events.emit("process.started", topics=settings.consumed_topics, group=settings.kafka_group_id)
        connection.configure(settings.database_url, "bridge", connections=2)
        process.run(settings, create_app(settings))
        events.emit("process.stopped")
    elif only == "worker":
        run_worker(settings)
    elif only == "tasks":
        if not settings.tasks:
            raise ConfigurationError("--only tasks needs --tasks / TASKS, the modules with tasks of your own")
        task_app.run_worker(settings, user_modules.load(settings.tasks))
    else:
        task_app.taken(
            settings, user_modules.load(settings.tasks)
        )  # so that a bad module is one sentence, and not a pod that fails later
        supervisor.become(settings, child_environment(flags))
