"""The obligations to run the users' tasks, as chunks: for a task, those of a transaction's messages that it wants.

The transaction that stores a batch also writes its chunks, so that each message has exactly one obligation for each
task that wants it, whatever is redelivered. A chunk shrinks while its messages are run, from the first offset on, and
is deleted when all are done or have a row in `run`. A process that runs it has claimed it with a token, and each
change is conditional on that token. What it claimed is free again when its owner, a parent of workers, sends no
heartbeat any more.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from tasks.store.connection import database
from tasks.store.spans import Span

LOST_SECONDS = 15  # without a heartbeat of the owner
_MOST_CHUNKS, _MOST_BYTES = 20, 2_000_000  # claimed at once, but for a first chunk that is larger
ADD = """
    INSERT INTO chunk (task, topic, "partition", first_offset, next_offset, messages, bytes)
    SELECT task.id, %(topic)s, %(partition)s, %(first)s, %(next)s, sum(stored.messages), %(bytes)s
    FROM task, unnest(%(stored_types)s::text[], %(stored_messages)s::bigint[]) AS stored (type, messages)
    WHERE task.retired_at IS NULL AND (task.topic IS NULL OR task.topic = %(topic)s)
        AND (task.patterns IS NULL OR stored.type LIKE ANY (task.patterns))
    GROUP BY task.id RETURNING (SELECT name FROM task AS wanting WHERE wanting.id = chunk.task)
"""
# Of a chunk or run: nobody has claimed it, or whoever has is lost.
FREE = f"""
    (owner IS NULL OR NOT EXISTS (
        SELECT FROM task_worker WHERE task_worker.name = owner AND beat_at > now() - interval '{LOST_SECONDS} seconds'
    ))
"""
# The chunks of `task`, as a range of the index, to be ordered by task and id. With = PostgreSQL would trust its
# statistics: where one task has most chunks, it would look for those of another among all of them.
OF_TASK = "chunk.task >= task.id AND (chunk.task, chunk.id) <= (task.id, 9223372036854775807)"
# Of %(task)s, the name of a task.
NOT_PAUSED = "NOT EXISTS (SELECT FROM paused_task WHERE paused_task.name = %(task)s)"
_CLAIM = f"""
    UPDATE chunk SET owner = %(owner)s, token = %(token)s, claims = claims + 1
    WHERE id IN (
        SELECT id FROM (
            SELECT id, sum(messages) OVER earlier - messages AS before, sum(bytes) OVER earlier - bytes AS bytes FROM (
                SELECT oldest.* FROM task, LATERAL (
                    SELECT chunk.id, messages, bytes FROM chunk WHERE {OF_TASK} AND {FREE}
                    ORDER BY chunk.task, chunk.id LIMIT {_MOST_CHUNKS} FOR UPDATE SKIP LOCKED
                ) AS oldest WHERE task.name = %(task)s AND {NOT_PAUSED}
            ) AS free WINDOW earlier AS (ORDER BY id)
        ) AS summed WHERE before < %(messages)s AND bytes < {_MOST_BYTES}
    )
    RETURNING id, task, topic, "partition", first_offset, next_offset, stored_at, messages, claims, suspect, kills
"""
# OFFSET 0, so that each chunk looks its messages up by their time, which all of a transaction share.
_MESSAGES = """
    SELECT chunk.id, message.id, type, key, message.topic, message."partition", message."offset", produced_at,
        stored_at, headers, payload
    FROM unnest(%(ids)s, %(tasks)s, %(topics)s, %(partitions)s, %(firsts)s, %(nexts)s, %(times)s)
            AS chunk (id, task, topic, "partition", first, next, at)
        JOIN task ON task.id = chunk.task,
        LATERAL (
            SELECT * FROM message
            WHERE message.stored_at = chunk.at AND message.stored_at BETWEEN %(since)s AND %(until)s
                AND message.topic = chunk.topic AND message."partition" = chunk."partition"
                AND message."offset" >= chunk.first AND message."offset" < chunk.next
                AND (task.patterns IS NULL OR message.type LIKE ANY (task.patterns))
            OFFSET 0
        ) AS message
    ORDER BY chunk.id, message."offset"
"""
_LOCK = "SELECT id FROM chunk WHERE id = %s AND token = %s FOR UPDATE"
_SHRINK = """
    UPDATE chunk SET first_offset = %(offset)s, messages = messages - %(messages)s, suspect = NULL, kills = 0
    WHERE id = %(id)s AND token = %(token)s
"""
_SUSPECT = """
    UPDATE chunk SET first_offset = %(offset)s, suspect = %(offset)s,
        kills = CASE WHEN suspect = %(offset)s THEN kills + 1 ELSE 1 END
    WHERE id = %(id)s AND token = %(token)s RETURNING kills
"""
_DIVIDE = """
    WITH first AS (
        UPDATE chunk SET next_offset = %(offset)s, messages = messages - %(messages)s
        WHERE id = %(id)s AND token = %(token)s RETURNING *
    )
    INSERT INTO chunk (task, topic, "partition", first_offset, next_offset, stored_at, messages, bytes)
    SELECT task, topic, "partition", %(offset)s, %(next)s, stored_at, %(messages)s, bytes FROM first
"""
_DELETE = "DELETE FROM chunk WHERE id = ANY (%s) AND token = %s"
_RELEASE = """
    UPDATE chunk SET owner = NULL, token = NULL, claims = 0, suspect = NULL, kills = 0 WHERE token = %s
"""
_ABANDON = "UPDATE chunk SET owner = NULL, token = NULL WHERE token = %s"
_TOKENS = """
    SELECT token FROM chunk WHERE token IS NOT NULL AND owner = %(owner)s
    UNION SELECT token FROM run WHERE token IS NOT NULL AND owner = %(owner)s
"""
_OLDEST = "SELECT min(stored_at) FROM chunk"


class LeaseLost(Exception):
    """Raised when somebody else has claimed what this process was running, because its parent was taken for lost."""


class Chunk(NamedTuple):
    """A claimed chunk. `claims` is more than 1 if a process that had claimed it before did not release it."""

    id: int
    task: int
    topic: str
    partition: int
    first_offset: int
    next_offset: int
    stored_at: Any
    messages: int
    claims: int
    suspect: int | None
    kills: int


class Obligation(NamedTuple):
    """A message of a chunk, as PostgreSQL returns it."""

    chunk: int
    id: Any
    type: str | None
    key: str | None
    topic: str
    partition: int
    offset: int
    produced_at: Any
    stored_at: Any
    headers: str | None
    payload: str | None


def addition(span: Span, size: int, types: Counter[str | None]) -> dict[str, Any]:
    """The values of ADD for the messages of a span that a transaction stores, by type. It returns names of tasks.

    `size` is that of the span's values, in bytes.
    """
    return {
        "topic": span.source.topic,
        "partition": span.source.partition,
        "first": span.first,
        "next": span.next,
        "bytes": size,
        "stored_types": list(types),
        "stored_messages": list(types.values()),
    }


def claim(task: str, owner: str, token: str, messages: int) -> list[Chunk]:
    """Claim the oldest free chunks of a task, with up to about that number of messages; at least one, if any is free.

    Raises peewee.DatabaseError.
    """
    values = {"task": task, "owner": owner, "token": token, "messages": messages}
    return sorted(map(Chunk._make, database.execute_sql(_CLAIM, values).fetchall()))


def messages(claimed: Sequence[Chunk]) -> list[Obligation]:
    """The messages of chunks, in the order of chunks and offsets. Raises peewee.DatabaseError."""
    times = [chunk.stored_at for chunk in claimed]
    values = {
        "ids": [chunk.id for chunk in claimed],
        "tasks": [chunk.task for chunk in claimed],
        "topics": [chunk.topic for chunk in claimed],
        "partitions": [chunk.partition for chunk in claimed],
        "firsts": [chunk.first_offset for chunk in claimed],
        "nexts": [chunk.next_offset for chunk in claimed],
        "times": times,
        "since": min(times),
        "until": max(times),
    }
    return list(map(Obligation._make, database.execute_sql(_MESSAGES, values).fetchall()))


def lock(chunk: Chunk, token: str) -> None:
    """Hold the chunk's row to the end of the transaction. Raises LeaseLost."""
    if database.execute_sql(_LOCK, (chunk.id, token)).fetchone() is None:
        raise LeaseLost


def shrink(chunk: Chunk, token: str, offset: int, done: int) -> None:
    """Record that `done` messages before `offset` are done. Raises LeaseLost."""
    values = {"id": chunk.id, "token": token, "offset": offset, "messages": done}
    if not database.execute_sql(_SHRINK, values).rowcount:
        raise LeaseLost


def divide(chunk: Chunk, token: str, offset: int, messages: int) -> None:
    """Make the last `messages` of a chunk, from `offset` on, a free chunk of their own. Raises LeaseLost."""
    values = {"id": chunk.id, "token": token, "offset": offset, "next": chunk.next_offset, "messages": messages}
    if not database.execute_sql(_DIVIDE, values).rowcount:
        raise LeaseLost


def suspect(chunk: Chunk, token: str, offset: int) -> int:
    """Record which message is run next, and that all before are done; returns how often that was said of it.

    Raises LeaseLost.
    """
    row = database.execute_sql(_SUSPECT, {"id": chunk.id, "token": token, "offset": offset}).fetchone()
    if row is None:
        raise LeaseLost
    return int(row[0])


def delete(ids: Sequence[int], token: str) -> None:
    """Delete chunks whose messages are all done. Raises LeaseLost."""
    if ids and database.execute_sql(_DELETE, (list(ids), token)).rowcount < len(ids):
        raise LeaseLost


def release(token: str) -> None:
    """Let others claim what is left of the chunks of this token."""
    database.execute_sql(_RELEASE, (token,))


def abandon(token: str) -> None:
    """The same, if the process that claimed them ended: the next one finds out whether a message is the cause."""
    database.execute_sql(_ABANDON, (token,))


def tokens(owner: str) -> set[str]:
    """The tokens with which the processes of this parent have claimed chunks and runs. Raises peewee.DatabaseError."""
    return {row[0] for row in database.execute_sql(_TOKENS, {"owner": owner}).fetchall()}


def oldest() -> Any:
    """When the oldest message with an open obligation was stored; None if there is none."""
    return database.execute_sql(_OLDEST).fetchone()[0]
