"""A task that does nothing."""

from tasks import Message, task


@task(on="*")
def noop(message: Message) -> None:
    """Do nothing."""
