"""Runs a user's task for the messages that it is obliged to: for about a second, then others have their turn.

Without `transaction=True` what is done is recorded every 100 ms, so a crash repeats no more than that. With it, the
rows of the obligations are locked to the end, and their end is committed together with what the functions wrote.
"""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence

import peewee

from tasks.declaration import Message, Reject, Task
from tasks.store import chunks, runs
from tasks.store.chunks import Chunk, Obligation
from tasks.store.connection import database
from tasks.store.runs import Failure
from tasks.worker import attempt
from tasks.worker.due_runs import KILLER, KILLS, DueRuns
from tasks.worker.lending import Ended, Lent
from tasks.worker.outcomes import Outcomes

_SECONDS = 1.0  # that a Celery task lasts, or little more
_SAVE_SECONDS = 0.1
_MOST_MESSAGES = 4_000  # claimed at once
_FIRST_GUESS_SECONDS = 0.01  # of a run, before one was measured
_measured: dict[str, float] = {}  # by task: seconds of a run in this process, lately
Failed = list[tuple[Obligation, Failure]]


class Execution:
    """The work of one Celery task: runs of one task, claimed with one token."""

    def __init__(self, task: Task, owner: str, token: str, outcomes: Outcomes) -> None:
        self._task, self._owner, self._token, self._outcomes = task, owner, token, outcomes
        self._due_runs = DueRuns(task, owner, token, outcomes)
        self._end = time.monotonic() + _SECONDS

    def run(self) -> bool:
        """Run what is open until that, or a second, is over; returns whether more may be open.

        Raises LeaseLost, and the errors in `connection.TRANSIENT`; what was claimed must then be abandoned.
        """
        while not self._is_over():
            worked = self._run_chunks()
            ran = self._due_runs.run(_fitting(self._seconds()), self._is_over)
            if self._outcomes.pause(self._task.name) or not (worked or ran):
                return False
        return True

    def _seconds(self) -> float:
        return _measured.get(self._task.name, _FIRST_GUESS_SECONDS)

    def _is_over(self) -> bool:
        return time.monotonic() >= self._end

    def _run_chunks(self) -> bool:
        seconds = self._seconds()
        claimed = chunks.claim(self._task.name, self._owner, self._token, _fitting(seconds))
        if not claimed:
            return False
        obligations = itertools.groupby(chunks.messages(claimed), key=lambda one: one.chunk)
        by_chunk = {number: list(some) for number, some in obligations}
        done: list[int] = []
        for chunk in claimed:
            messages = self._divided(chunk, by_chunk.get(chunk.id, []), seconds)
            if not self._run_chunk(chunk, messages, done):
                break
        chunks.delete(done, self._token)
        if len(done) < len(claimed):
            chunks.release(self._token)
        return True

    def _divided(self, chunk: Chunk, messages: list[Obligation], seconds: float) -> list[Obligation]:
        """The first half of a chunk that takes long, so that another process can run the second meanwhile."""
        if len(messages) < 2 or len(messages) * seconds < 2 * _SECONDS or chunk.claims > 1:
            return messages
        middle = len(messages) // 2
        chunks.divide(chunk, self._token, messages[middle].offset, len(messages) - middle)
        return messages[:middle]

    def _run_chunk(self, chunk: Chunk, messages: list[Obligation], done: list[int]) -> bool:
        """Run the messages of a chunk. False if time was over first; otherwise the chunk can be deleted: it is `done`.

        After a process has ended while it ran this chunk, which message it runs is recorded before each.
        """
        began, count = time.monotonic(), len(messages)
        groups = list(_groups(messages, self._task.options.batch or 1))
        while groups:
            if chunk.claims > 1:
                groups = self._spared(chunk, groups)
                if not groups:
                    break
            some, groups = (groups[:1], groups[1:]) if chunk.claims > 1 else (groups, [])
            left = self._transaction(chunk, some) if self._task.options.transaction else self._calls(chunk, some)
            groups = left + groups
            if groups and self._is_over():
                break
        ran = count - sum(map(len, groups))
        if ran:
            _measure(self._task.name, (time.monotonic() - began) / ran)
        if not groups:
            done.append(chunk.id)
        return not groups

    def _spared(self, chunk: Chunk, groups: list[list[Obligation]]) -> list[list[Obligation]]:
        """Record which messages are run next; without those that ended their process too often, which have failed."""
        while groups and chunks.suspect(chunk, self._token, groups[0][0].offset) >= KILLS:
            with database.atomic():
                self._record(chunk, groups[0], [(message, KILLER) for message in groups[0]])
            groups = groups[1:]
        return groups

    def _calls(self, chunk: Chunk, groups: list[list[Obligation]]) -> list[list[Obligation]]:
        """Call the function for each group; returns those for which no time was left."""
        unsaved: list[Obligation] = []
        failed: Failed = []
        saved = time.monotonic()
        for number, group in enumerate(groups, 1):
            failed += self._call(group)
            unsaved += group
            now = time.monotonic()
            if now - saved >= _SAVE_SECONDS or number == len(groups) or now >= self._end:
                with database.atomic():
                    self._record(chunk, unsaved, failed)
                saved, unsaved, failed = now, [], []
                if now >= self._end:
                    return groups[number:]
        return []

    def _transaction(self, chunk: Chunk, groups: list[list[Obligation]]) -> list[list[Obligation]]:
        """Call the function for each group, and record that in the same transaction; returns those with no time left.

        If a function fails, all is rolled back, and each group gets a savepoint: a function is called twice at most.
        """
        lent, called = Lent(self._task.options.time_limit), groups
        for savepoints in (False, True):
            ran: list[Obligation] = []
            failed: Failed = []
            try:
                with lent.transaction():
                    chunks.lock(chunk, self._token)
                    for group in called:
                        with lent.to_a_function(savepoints):
                            failed += self._call(group, lent)
                        ran += group
                        if failed and not savepoints:
                            raise _Again
                        if self._is_over() and not savepoints:
                            break
                    self._record(chunk, ran, failed)
            except (_Again, peewee.IntegrityError):  # a deferred constraint fails with the COMMIT
                if savepoints:
                    raise
                called = [
                    group for group in groups if group[-1].offset <= ran[-1].offset
                ]  # no more, or some a third time
                continue
            except Ended as ended:
                if not ended.committed:  # those before must run again, without the one that has undone them
                    before = [one for one in called if one[-1].offset < group[0].offset]
                    while before:
                        before = self._transaction(chunk, before)
                    ran, failed = [], []
                with database.atomic():
                    ran += group
                    self._record(chunk, ran, [*failed, *self._failed(group, ended)])
            return [group for group in groups if group[-1].offset > ran[-1].offset]
        return groups

    def _record(self, chunk: Chunk, ran: Sequence[Obligation], failed: Failed) -> None:
        runs.add(self._task.name, failed)
        chunks.shrink(chunk, self._token, ran[-1].offset + 1, len(ran))
        self._outcomes.count(self._task.name, len(ran), [one for _, one in failed])

    def _call(self, group: Sequence[Obligation], lent: Lent | None = None) -> Failed:
        """Call the function for the messages that it can receive; all of them fail together."""
        received: list[Message] = []
        failed: Failed = []
        for one in group:
            try:
                received.append(attempt.to_message(one, self._task.options.model, 1))
            except Reject as error:
                failed.append((one, attempt.failure(error, self._task.options, 1)))
        if received:
            raised = attempt.call(self._task, received)
            raised = attempt.after_call(raised) if lent is None else lent.after_call(raised)
            if raised is not None:
                rejected = {one.id for one, _ in failed}
                failed += self._failed([one for one in group if one.id not in rejected], raised)
        return failed

    def _failed(self, group: Iterable[Obligation], error: Exception) -> Failed:
        return [(one, attempt.failure(error, self._task.options, 1)) for one in group]


class _Again(Exception):
    """Raised to roll back what was called without savepoints."""


def _groups(messages: list[Obligation], size: int) -> Iterator[list[Obligation]]:
    for first in range(0, len(messages), size):
        yield messages[first : first + size]


def _fitting(seconds: float) -> int:
    return max(1, min(_MOST_MESSAGES, int(_SECONDS / seconds)))


def _measure(task: str, seconds: float) -> None:
    _measured[task] = (_measured.get(task, seconds) + seconds) / 2
