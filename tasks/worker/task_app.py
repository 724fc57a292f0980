"""The Celery worker that runs the users' tasks: its application, and how it begins and ends."""

import uuid
from collections.abc import Sequence
from dataclasses import replace

from celery import Celery

from tasks.config.setting import flag
from tasks.config.settings import Settings
from tasks.declaration import Task
from tasks.errors import ConfigurationError
from tasks.observability import events, setup
from tasks.store import connection
from tasks.worker import app as storing
from tasks.worker import attempt
from tasks.worker.dispatcher import Dispatcher
from tasks.worker.execute import NAME, Execute
from tasks.worker.outcomes import Outcomes
from tasks.worker.wakes import Wakes

_GRACE_SECONDS = 15  # beyond the time limit of a function, which is called twice at most, until its process is killed


def queue(settings: Settings) -> str:
    """The queue of a consumer group."""
    return f"execute.{settings.kafka_group_id}"


def create_app(settings: Settings, tasks: Sequence[Task], owner: str) -> Celery:
    """Wire the Celery application. Connects nothing. Raises ConfigurationError without a Redis address."""
    if settings.redis_url is None:
        raise ConfigurationError(f"{flag('redis_url')} / REDIS_URL must be set for this process")
    app = Celery("tasks", broker=storing.broker_url(settings.redis_url), set_as_current=False)
    app.conf.update(storing.configuration(settings))
    app.conf.update(
        task_default_queue=queue(settings),
        # What is open is said by PostgreSQL, so a Celery task that is lost or redelivered changes nothing.
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_time_limit=None,
        worker_max_memory_per_child=None,  # that of the functions is the users' own
    )
    task = Execute()
    task.tasks = _by_name(tasks)
    task.owner = owner
    task.wakes = Wakes(settings)
    task.outcomes = Outcomes(settings.task_failure_limit_percent)
    app.register_task(task)
    return app


def _by_name(tasks: Sequence[Task]) -> dict[str, Task]:
    """The tasks by each of their names. What was obliged by an alias is run, counted and paused by that name."""
    renamed = {alias: replace(task, name=alias) for task in tasks for alias in task.options.aliases}
    return renamed | {task.name: task for task in tasks}


def run_worker(settings: Settings, tasks: Sequence[Task]) -> None:
    """Run `settings.task_workers` processes that run the users' tasks, until stopped."""
    setup.exit_if_a_thread_fails()
    owner = uuid.uuid4().hex
    app = create_app(settings, tasks, owner)
    execute = app.tasks[NAME]
    limits = {name: 2 * task.options.time_limit + _GRACE_SECONDS for name, task in execute.tasks.items()}

    def enqueue(name: str) -> None:
        execute.apply_async(args=(name,), retry=False, time_limit=limits[name])

    # Half of the bridge's limit, as for the workers that store.
    patience = settings.watchdog_seconds / 2
    dispatcher = Dispatcher(
        owner,
        limits,
        [task.name for task in tasks],
        enqueue,
        execute.wakes,
        queue(settings),
        settings.task_workers,
        patience,
    )
    execute.left = dispatcher.left
    connection.configure(settings.database_url, "tasks", connections=2)
    dispatcher.start()
    storing.work(app, settings, "tasks", settings.task_workers, lambda: _begin_process(settings))
    dispatcher.stop()
    events.emit("process.stopped")


def _begin_process(settings: Settings) -> None:
    connection.database.forget()
    setup.begin(settings, "tasks")
    attempt.prepare_process()
