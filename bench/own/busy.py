"""A task that needs 5 ms of CPU."""

import time

from tasks import Message, task


@task(on="*")
def busy(message: Message) -> None:
    """Compute for 5 ms."""
    end = time.process_time() + 0.005
    while time.process_time() < end:
        pass
