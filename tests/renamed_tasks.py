"""The task `exact` of tests/user_tasks.py after it was renamed."""

from tasks import Message, task
from tests.user_tasks import write


@task(on="type-*", transaction=True, name="exactly", aliases=["exact"])
def exactly(message: Message) -> None:
    write("exactly", message)
