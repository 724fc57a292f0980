"""A peer: Celery on Redis with acks_late, a Celery task for each message. No Kafka, and not durable."""

import sys

from celery import Celery

from bench.messages import generate
from bench.work import Work
from tasks.config import settings
from tasks.store import connection

loaded = settings.load()
work = Work(loaded)
queue = f"alone.{loaded.kafka_group_id}"
app = Celery("alone", broker=loaded.redis_url)
app.conf.update(task_ignore_result=True, task_acks_late=True, task_default_queue=queue, worker_prefetch_multiplier=4)


@app.task(name="alone.run")  # type: ignore[untyped-decorator]
def run(payload: str) -> None:
    """Run one message."""
    work.run(payload)


if __name__ == "__main__":
    if sys.argv[1:]:  # how many to queue
        for _, value in generate(int(sys.argv[1]), 1):
            run.delay(value.decode())
    else:
        connection.configure(loaded.database_url, "alone", connections=1)
        arguments = ["--concurrency", str(loaded.task_workers), "-Q", queue, "--loglevel", "WARNING"]
        app.worker_main(["--quiet", "worker", *arguments])
