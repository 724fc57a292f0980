"""Celery on Redis with acks_late, a task that does nothing for each message: no Kafka, and not durable."""

import sys

from celery import Celery

from bench.messages import generate
from tasks.config import settings

loaded = settings.load()
app = Celery("alone", broker=loaded.redis_url)
app.conf.update(task_ignore_result=True, task_acks_late=True, task_default_queue="alone", worker_prefetch_multiplier=4)


@app.task(name="alone.noop")  # type: ignore[untyped-decorator]
def noop(payload: str) -> None:
    """Do nothing."""


if __name__ == "__main__":
    if sys.argv[1:]:  # how many to queue
        for _, value in generate(int(sys.argv[1]), 1):
            noop.delay(value.decode())
    else:
        arguments = ["--concurrency", str(loaded.task_workers), "-Q", "alone", "--loglevel", "WARNING"]
        app.worker_main(["--quiet", "worker", *arguments])
