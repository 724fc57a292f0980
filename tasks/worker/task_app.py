"""The Celery worker that runs the users' tasks: its application, and how it begins and ends."""

import socket
import uuid
from collections.abc import Callable, Sequence
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
from tasks.worker.time_limits import GRACE_SECONDS, OfThreads
from tasks.worker.wakes import Wakes


def queue(settings: Settings, task: Task) -> str:
    """The queue of a task in Redis: each consumer group has its own."""
    return f"execute.{settings.kafka_group_id}.{task.options.queue}"


def taken(settings: Settings, tasks: Sequence[Task]) -> list[Task]:
    """Those of the tasks whose queue is run here. Raises ConfigurationError for a queue without a task."""
    wanted, known = settings.task_queues, {task.options.queue for task in tasks}
    for name in wanted:
        if name not in known:
            there = ", ".join(sorted(known))
            raise ConfigurationError(f"{flag('task_queues')} / TASK_QUEUES: no task has the queue {name}, but {there}")
    return [task for task in tasks if not wanted or task.options.queue in wanted]


def create_app(settings: Settings, tasks: Sequence[Task], owner: str) -> Celery:
    """Wire the Celery application. Connects nothing. Raises ConfigurationError without a Redis address."""
    app = storing.celery_app("tasks", settings)
    app.conf.update(
        # What is open is said by PostgreSQL, so a Celery task that is lost or redelivered changes nothing.
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_time_limit=None,
        worker_max_memory_per_child=None,  # that of the functions is the users' own
    )
    # Threads acknowledge their Celery tasks at once; kombu's pool has 10, and an 11th would be an error.
    app.conf.broker_transport_options["max_connections"] = 10 + settings.task_workers
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
    """Run `settings.task_workers` processes, or threads, that run the users' tasks, until stopped."""
    setup.exit_if_a_thread_fails()
    tasks, workers = taken(settings, tasks), settings.task_workers
    app = create_app(settings, tasks, owner=f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}")
    of_threads = OfThreads() if settings.task_pool == "threads" else None
    dispatcher = _dispatcher(settings, tasks, app.tasks[NAME], [] if of_threads is None else [of_threads.check])
    connection.configure(settings.database_url, "tasks", connections=2 if of_threads is None else 2 + workers)

    def begin() -> None:
        if of_threads is None:
            connection.database.forget()
        setup.begin(settings, "tasks")
        attempt.prepare_process(of_threads)

    dispatcher.start()
    storing.work(app, _queues(settings, tasks), settings, "tasks", workers, begin, settings.task_pool)
    dispatcher.stop()
    events.emit("process.stopped")


def _dispatcher(
    settings: Settings, tasks: Sequence[Task], execute: Execute, checks: Sequence[Callable[[], None]]
) -> Dispatcher:
    # A function is called twice at most. Celery kills a process then; of threads the dispatcher sees one that hangs.
    limits = {name: 2 * task.options.time_limit + GRACE_SECONDS for name, task in execute.tasks.items()}

    def enqueue(name: str) -> None:
        to = queue(settings, execute.tasks[name])
        execute.apply_async(args=(name,), queue=to, retry=False, time_limit=limits[name])

    dispatcher = Dispatcher(
        owner=execute.owner,
        names=limits,
        declared=[task.name for task in tasks],
        enqueue=enqueue,
        wakes=execute.wakes,
        queues=_queues(settings, tasks),
        most=settings.task_workers,
        patience_seconds=settings.watchdog_seconds / 2,  # half of the bridge's, as for the workers that store
        checks=checks,
    )
    execute.left = dispatcher.left
    return dispatcher


def _queues(settings: Settings, tasks: Sequence[Task]) -> list[str]:
    return sorted({queue(settings, task) for task in tasks})
