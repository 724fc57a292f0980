"""A task that waits for 50 ms, as for another server."""

import time

from tasks import Message, task


@task(on="*")
def wait(message: Message) -> None:
    """Wait for 50 ms."""
    time.sleep(0.05)
