"""Obligations for messages that were stored before a task existed, or once more for those that it has run."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from tasks.errors import ConfigurationError
from tasks.store import leaves, task_registry
from tasks.store.connection import database

_STEP = timedelta(minutes=1)  # of stored_at, in one transaction
_REPLAYED = "SELECT begin_at, end_at FROM replay WHERE task = %s AND begin_at < %s AND end_at > %s ORDER BY begin_at"
_RECORD = "INSERT INTO replay (task, begin_at, end_at) VALUES (%s, %s, %s)"
_KNOWN = "SELECT id FROM task WHERE name = %s AND retired_at IS NULL"
# Of the messages that the task wants now, those that it was not obliged to when they were stored. Those of a
# transaction share their time; a chunk is what one transaction stored of a partition.
_WANTED = """
    FROM message JOIN task ON task.id = %(id)s
    WHERE message.stored_at >= %(begin)s AND message.stored_at < %(end)s
        AND (task.topic IS NULL OR task.topic = message.topic)
        AND (task.patterns IS NULL OR message.type LIKE ANY (task.patterns))
        AND (%(again)s OR NOT EXISTS (
            SELECT FROM task AS before
            WHERE before.name = ANY (task.name || task.aliases) AND message.xact >= before.xact
                AND (before.retired_xact IS NULL OR message.xact < before.retired_xact)
                AND (before.topic IS NULL OR before.topic = message.topic)
                AND (before.patterns IS NULL OR message.type LIKE ANY (before.patterns))
        ))
"""
_COUNT = f"SELECT count(*) {_WANTED}"
_OBLIGE = f"""
    WITH made AS (
        INSERT INTO chunk (task, topic, "partition", first_offset, next_offset, stored_at, messages, bytes)
        SELECT task.id, message.topic, message."partition", min("offset"), max("offset") + 1, stored_at, count(*),
            coalesce(sum(pg_column_size(payload)), 0)
        {_WANTED} GROUP BY task.id, message.topic, message."partition", stored_at RETURNING messages
    )
    SELECT coalesce(sum(messages), 0)::bigint FROM made
"""


class Step(NamedTuple):
    """What a part of a replay did: up to which time, and for how many messages."""

    until: datetime
    messages: int


def replay(task: str, since: datetime, until: datetime, again: bool, dry_run: bool) -> Iterator[Step]:
    """Oblige a task to the messages that were stored in this time, oldest first, each step in a transaction.

    Not to those that it was obliged to before, by their storing or by a replay, unless `again`: an interrupted replay
    can be repeated. Raises ConfigurationError if the task is not registered, and peewee.DatabaseError.
    """
    row = database.execute_sql(_KNOWN, (task,)).fetchone()
    if row is None:
        raise ConfigurationError(
            f"the task {task} is not registered; there are: {', '.join(task_registry.names()) or 'none'}"
        )
    for leaf in reversed(list(leaves.newest_first(since, until))):
        begin = max(leaf.begin, since)
        while begin < min(leaf.end, until):
            end = min(begin + _STEP, leaf.end, until)
            yield Step(end, sum(_step(task, row[0], part, again, dry_run) for part in _parts(task, begin, end, again)))
            begin = end


def _parts(task: str, begin: datetime, end: datetime, again: bool) -> list[tuple[datetime, datetime]]:
    """What of this time was not replayed before."""
    replayed = [] if again else database.execute_sql(_REPLAYED, (task, end, begin)).fetchall()
    parts: list[tuple[datetime, datetime]] = []
    for other_begin, other_end in replayed:
        if begin < other_begin:
            parts.append((begin, other_begin))
        begin = max(begin, other_end)
    return [*parts, (begin, end)] if begin < end else parts


def _step(task: str, number: int, part: tuple[datetime, datetime], again: bool, dry_run: bool) -> int:
    values = {"id": number, "begin": part[0], "end": part[1], "again": again}
    if dry_run:
        return int(database.execute_sql(_COUNT, values).fetchone()[0])
    with database.atomic():
        made = int(database.execute_sql(_OBLIGE, values).fetchone()[0])
        database.execute_sql(_RECORD, (task, *part))
    return made
