"""Obligations for messages that were stored before a task existed, or once more for those that it has run."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from tasks.errors import ConfigurationError
from tasks.store import leaves, task_registry
from tasks.store.connection import database

_STEP = 50_000  # messages that one transaction looks at: about a quarter of a second
_STEP_END = (
    "SELECT stored_at FROM message WHERE stored_at >= %s AND stored_at < %s ORDER BY stored_at OFFSET %s LIMIT 1"
)
# So that two replays at once, as of a request that is repeated, do not both take the same time for not replayed.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('replay'), hashtext(%s))"
_REPLAYED = "SELECT begin_at, end_at FROM replay WHERE task = %s AND begin_at < %s AND end_at > %s ORDER BY begin_at"
_RECORD = """
    WITH extended AS (UPDATE replay SET end_at = %(end)s WHERE task = %(task)s AND end_at = %(begin)s RETURNING task)
    INSERT INTO replay (task, begin_at, end_at)
    SELECT %(task)s, %(begin)s, %(end)s WHERE NOT EXISTS (SELECT FROM extended)
"""
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
            end = _end(begin, min(leaf.end, until))
            yield Step(end, (_counted if dry_run else _obliged)(task, row[0], begin, end, again))
            begin = end


def _end(begin: datetime, latest: datetime) -> datetime:
    """The end of a step, so that it has not many messages. Those of a transaction share their time."""
    row = database.execute_sql(_STEP_END, (begin, latest, _STEP)).fetchone()
    return latest if row is None else max(row[0], begin + timedelta(microseconds=1))


def _counted(task: str, number: int, begin: datetime, end: datetime, again: bool) -> int:
    return sum(_run(_COUNT, number, part, again) for part in _parts(task, begin, end, again))


def _obliged(task: str, number: int, begin: datetime, end: datetime, again: bool) -> int:
    made = 0
    with database.atomic():
        database.execute_sql(_LOCK, (task,))
        for part in _parts(task, begin, end, again):
            made += _run(_OBLIGE, number, part, again)
            database.execute_sql(_RECORD, {"task": task, "begin": part[0], "end": part[1]})
    return made


def _parts(task: str, begin: datetime, end: datetime, again: bool) -> list[tuple[datetime, datetime]]:
    """What of this time was not replayed before."""
    replayed = [] if again else database.execute_sql(_REPLAYED, (task, end, begin)).fetchall()
    parts: list[tuple[datetime, datetime]] = []
    for other_begin, other_end in replayed:
        if begin < other_begin:
            parts.append((begin, other_begin))
        begin = max(begin, other_end)
    return [*parts, (begin, end)] if begin < end else parts


def _run(statement: str, number: int, part: tuple[datetime, datetime], again: bool) -> int:
    values = {"id": number, "begin": part[0], "end": part[1], "again": again}
    return int(database.execute_sql(statement, values).fetchone()[0])
