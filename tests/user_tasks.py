"""Tasks as users write them, for the scenarios. `effect` is a table of the users' own, which `prepare` makes."""

import os
import signal
import threading
import time
from collections.abc import Sequence

from tasks import Message, Reject, Retry, database, task

EFFECT = "CREATE TABLE effect (task text NOT NULL, message text NOT NULL, attempt integer NOT NULL)"


def write(name: str, message: Message) -> None:
    database.execute_sql("INSERT INTO effect VALUES (%s, %s, %s)", (name, message.id, message.attempt))


@task(on="type-*", transaction=True, name="exact")
def exact(message: Message) -> None:
    write("exact", message)


@task(on="type-*", name="at_least_once")
def at_least_once(message: Message) -> None:
    write("at_least_once", message)


@task(on="type-*", batch=50, transaction=True, name="in_batches")
def in_batches(messages: Sequence[Message]) -> None:
    for message in messages:
        write("in_batches", message)


@task(on="order.*", transaction=True, name="flaky", max_retries=2, retry_backoff=False)
def flaky(message: Message) -> None:
    """Fails, rejects, asks for a retry or ends its process, as its message says."""
    write("flaky", message)
    wish = message.payload["wish"]
    if wish == "fail":
        raise ValueError("as its message says")
    if wish == "fail once" and message.attempt == 1:
        raise ValueError("as its message says")
    if wish == "reject":
        raise Reject("as its message says")
    if wish == "retry" and message.attempt == 1:
        raise Retry("later", after=0.5)
    if wish == "commit":
        database.execute_sql("COMMIT")
    if wish == "exit":
        raise SystemExit("as its message says")
    if wish == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


@task(on="wait", name="waiting")
def waiting(message: Message) -> None:
    """Waits as for the response of another system."""
    threading.Event().wait(0.05)


@task(on="slow", name="slow", queue="slow", time_limit=1, max_retries=0)
def slow(message: Message) -> None:
    deadline = time.monotonic() + message.payload["seconds"]
    while time.monotonic() < deadline:
        pass
    write("slow", message)


@task(name="double", store_result=True, max_retries=1, retry_backoff=False)
def double(message: Message) -> dict[str, int]:
    """Only runs when it is called."""
    if message.payload.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    write("double", message)
    return {"double": 2 * message.payload["n"]}


@task(on="passed-on", transaction=True, name="passing_on", max_retries=0)
def passing_on(message: Message) -> None:
    """Calls another task in its transaction."""
    double.delay(n=message.payload["n"])
    if message.payload.get("fail"):
        raise ValueError("as its message says")
