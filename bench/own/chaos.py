"""Tasks for the load of `make chaos`: exact, failing at random, and ending their process or exceeding their time."""

import os
import random
import signal
import time

from tasks import Message, database, task

EFFECT = "CREATE TABLE effect (task text NOT NULL, message uuid NOT NULL)"
AT_RANDOM = "it fails at random"
KILL, SLEEP = "kill", "sleep"  # what the field `wish` of a payload asks for


@task(on="*", transaction=True, name="exact")
def exact(message: Message) -> None:
    """Have an effect."""
    _write("exact", message)


@task(on="chaos*", max_retries=1, name="unreliable")
def unreliable(message: Message) -> None:
    """Fail for every twentieth message."""
    if random.random() < 0.05:
        raise ValueError(AT_RANDOM)
    _write("unreliable", message)


@task(on="chaos", transaction=True, max_retries=0, time_limit=2, name="deadly")
def deadly(message: Message) -> None:
    """Have an effect, and end badly for some messages."""
    _write("deadly", message)
    if message.payload.get("wish") == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if message.payload.get("wish") == SLEEP:
        time.sleep(60)


def _write(name: str, message: Message) -> None:
    # No unique key: an effect that happened twice must be seen.
    database.execute_sql("INSERT INTO effect VALUES (%s, %s)", (name, message.id))
