"""The function of the task in TASKS, as the peers of `make bench-tasks` call it."""

import orjson

from tasks import Message, user_modules
from tasks.config.settings import Settings
from tasks.declaration import Task
from tasks.store.connection import checked_out, database


class Work:
    """What runs for each message: the same function in each peer."""

    def __init__(self, settings: Settings) -> None:
        self._tasks: list[Task] = list(user_modules.load(settings.tasks))

    def run(self, payload: str) -> None:
        """Call the function, in a transaction if its task has one; nothing if TASKS is not set."""
        content = orjson.loads(payload) if self._tasks else {}
        for task in self._tasks:
            message = Message(id=content["id"], type=content["type"], offset=content["number"], payload=content)
            if task.options.transaction:
                with checked_out(), database.atomic():
                    task(message)
            else:
                task(message)
