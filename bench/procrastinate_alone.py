"""A peer: procrastinate, a queue in PostgreSQL, a job for each message. Runs in .venv-bench, see the Makefile."""

import asyncio
import sys

import procrastinate

from bench.messages import generate
from bench.work import Work
from tasks.config import settings
from tasks.store import connection

loaded = settings.load()
work = Work(loaded)
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=loaded.database_url))
_AT_ONCE = 1_000  # jobs in a statement


@app.task(name="alone.run")  # type: ignore[untyped-decorator]
def run(payload: str) -> None:
    """Run one message."""
    work.run(payload)


async def _queue(count: int) -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        jobs = [{"payload": value.decode()} for _, value in generate(count, 1)]
        for first in range(0, count, _AT_ONCE):
            await run.batch_defer_async(*jobs[first : first + _AT_ONCE])


def main() -> None:
    """Queue as many messages as the argument says; without it, run those that are queued."""
    if sys.argv[1:]:  # how many to queue
        asyncio.run(_queue(int(sys.argv[1])))
    else:
        connection.configure(loaded.database_url, "alone", connections=1)
        app.run_worker(concurrency=1)
