"""Produces dead letters to their topics again, and marks each as redriven once Kafka has acknowledged it."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from bridge.kafka.publisher import Overloaded, Place, Publisher, Refused
from tasks.errors import BackendError
from tasks.observability import events
from tasks.store import dead_letters
from tasks.store.connection import database
from tasks.store.dead_letters import Selection
from tasks.store.models import DeadLetter
from tasks.store.rows import Keyset

_BATCH = 100  # in flight together; their rows are locked until Kafka has responded for all


@dataclass(frozen=True)
class Batch:
    """The result for some dead letters: those that are in Kafka again, and the errors of the others."""

    redriven: list[uuid.UUID]
    failed: dict[uuid.UUID, BackendError]

    @property
    def outage(self) -> bool:
        """Whether Kafka failed, not only records, so that the next batch would fail too."""
        return any(not isinstance(error, Refused) for error in self.failed.values())


def redrive(publisher: Publisher, selection: Selection, most: float = inf) -> Iterator[Batch]:
    """Produce up to `most` selected dead letters again, oldest first; yields after each batch, ends with an outage.

    A crash between Kafka's acknowledgement and the mark leaves a dead letter waiting, so it may be
    produced twice: `dead_letters.redriven` ensures that it is stored once.
    """
    after: Keyset | None = None
    while True:
        with database.atomic():
            letters = dead_letters.claim(selection, after, int(min(_BATCH, most)))
            batch = _produce(publisher, letters)
            dead_letters.mark_redriven(batch.redriven)
        if not letters:
            return
        yield batch
        most -= len(letters)
        if batch.outage or not most:
            return
        after = Keyset(letters[-1].dead_at, letters[-1].id)


def _produce(publisher: Publisher, letters: Sequence[DeadLetter]) -> Batch:
    sending = _Sending(publisher)
    for letter in letters:
        sending.send(letter)
        if sending.batch.outage:  # each further one would wait as long for the same response
            break
    sending.settle()
    for letter_id, failure in sending.batch.failed.items():
        events.emit("dead_letter.redrive_failed", id=letter_id, reason=str(failure))
    return sending.batch


class _Sending:
    """Dead letters in flight to Kafka; `batch` collects their outcomes."""

    def __init__(self, publisher: Publisher) -> None:
        self.batch = Batch([], {})
        self._publisher = publisher
        self._in_flight: dict[uuid.UUID, Callable[[], Place]] = {}

    def send(self, letter: DeadLetter) -> None:
        try:
            self._in_flight[letter.id] = self._sent(letter)
        except BackendError as error:
            self.batch.failed[letter.id] = error

    def settle(self) -> None:
        """Wait for Kafka's response to each dead letter in flight."""
        for letter_id, outcome in self._in_flight.items():
            try:
                place = outcome()
            except BackendError as error:
                self.batch.failed[letter_id] = error
                continue
            self.batch.redriven.append(letter_id)
            events.emit(
                "dead_letter.redriven", id=letter_id, topic=place.topic, partition=place.partition, offset=place.offset
            )
        self._in_flight.clear()

    def _sent(self, letter: DeadLetter) -> Callable[[], Place]:
        topic, partition, _, _, key, value, headers = dead_letters.redriven(letter)
        try:
            return self._publisher.send(topic, key, value, headers or (), partition)
        except Overloaded:
            if not self._in_flight:
                raise
        # Our own dead letters fill the publish queue; it has room again once Kafka has responded.
        self.settle()
        return self._publisher.send(topic, key, value, headers or (), partition)
