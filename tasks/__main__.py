"""`python -m tasks`: a Celery worker, configured by environment variables. Started by `consume`.

It stores batches, or with the argument `execute` runs the users' tasks.
"""

import sys

from tasks import user_modules
from tasks.config import settings
from tasks.errors import BackendError
from tasks.observability import events
from tasks.worker import app, task_app

if __name__ == "__main__":
    try:
        loaded = settings.load()
        if sys.argv[1:] == ["execute"]:
            events.configure(loaded, "tasks")
            declared = user_modules.load(loaded.tasks)
            events.emit("process.started", workers=loaded.task_workers, tasks=[one.name for one in declared])
            task_app.run_worker(loaded, declared)
        else:
            events.configure(loaded, "worker")
            events.emit("process.started", workers=loaded.workers)
            app.run_worker(loaded)
    except BackendError as error:
        events.emit("process.failed", reason=str(error))
        sys.exit(error.exit_code)
