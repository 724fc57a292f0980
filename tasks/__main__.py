"""`python -m tasks`: a Celery worker, configured by environment variables. Started by `consume`."""

import sys

from tasks.config import settings
from tasks.errors import BackendError
from tasks.observability import events
from tasks.worker.app import run_worker

if __name__ == "__main__":
    try:
        loaded = settings.load()
        events.configure(loaded, "worker")
        events.emit("process.started", workers=loaded.workers)
        run_worker(loaded)
    except BackendError as error:
        events.emit("process.failed", reason=str(error))
        sys.exit(error.exit_code)
