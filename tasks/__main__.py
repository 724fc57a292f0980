"""`python -m tasks`: a Celery worker, told by environment variables. Started by `consume`."""

import sys

from tasks import settings, telemetry
from tasks.app import run_worker
from tasks.errors import BackendError

if __name__ == "__main__":
    try:
        loaded = settings.load()
        telemetry.configure(loaded, "worker")
        telemetry.emit("process.started", workers=loaded.workers)
        run_worker(loaded)
    except BackendError as error:
        telemetry.emit("process.failed", reason=str(error))
        sys.exit(error.exit_code)
