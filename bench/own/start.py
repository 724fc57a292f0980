"""A task that says when it was started."""

import time

from tasks import Message, database, task


@task(on="*")
def start(message: Message) -> None:
    """Write the time, in nanoseconds since 1970."""
    now = time.time_ns()
    database.execute_sql("INSERT INTO effect VALUES (%s, %s)", (message.id, now))
