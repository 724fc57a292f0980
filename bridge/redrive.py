"""Puts dead letters back into their topics, and marks each as redriven once Kafka has acknowledged it."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from bridge.publisher import Overloaded, Place, Publisher, Refused
from tasks import dead_letters, telemetry
from tasks.database import database
from tasks.dead_letters import Keyset, Selection
from tasks.errors import BackendError
from tasks.models import DeadLetter

_BATCH = 100  # on their way together; their rows are locked until Kafka has answered for all


@dataclass(frozen=True)
class Batch:
    """What became of some dead letters: those in Kafka again, and the others with what went wrong."""

    redriven: list[uuid.UUID]
    failed: dict[uuid.UUID, BackendError]

    @property
    def outage(self) -> bool:
        """Whether Kafka failed, and not only the records, so that the next batch would fail too."""
        return any(not isinstance(error, Refused) for error in self.failed.values())


def redrive(publisher: Publisher, wanted: Selection, most: float = inf) -> Iterator[Batch]:
    """Produce up to `most` selected dead letters again, oldest first; yields after each batch, ends with an outage.

    A crash after Kafka's acknowledgement and before the mark leaves a letter waiting, so that it may be
    produced twice: `dead_letters.redriven` sees to it that it is stored once.
    """
    after: Keyset | None = None
    while True:
        with database.atomic():
            letters = dead_letters.claim(wanted, after, int(min(_BATCH, most)))
            batch = _produce(publisher, letters)
            dead_letters.mark_redriven(batch.redriven)
        if not letters:
            return
        yield batch
        most -= len(letters)
        if batch.outage or not most:
            return
        after = (letters[-1].dead_at, letters[-1].id)


def _produce(publisher: Publisher, letters: Sequence[DeadLetter]) -> Batch:
    sending = _Sending(publisher)
    for letter in letters:
        sending.send(letter)
        if sending.batch.outage:  # each further one would wait as long for the same answer
            break
    sending.settle()
    for letter_id, failure in sending.batch.failed.items():
        telemetry.emit("dead_letter.unsent", id=letter_id, reason=str(failure))
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
        """Wait for Kafka's answer to each letter in flight."""
        for letter_id, answer in self._in_flight.items():
            try:
                place = answer()
            except BackendError as error:
                self.batch.failed[letter_id] = error
                continue
            self.batch.redriven.append(letter_id)
            telemetry.emit(
                "dead_letter.redriven", id=letter_id, topic=place.topic, partition=place.partition, offset=place.offset
            )
        self._in_flight.clear()

    def _sent(self, letter: DeadLetter) -> Callable[[], Place]:
        topic, partition, _, _, key, value, headers = dead_letters.redriven(letter)
        try:
            return self._publisher.send(topic, key, value, headers, partition)
        except Overloaded:
            if not self._in_flight:
                raise
        # Our own letters fill the publisher's queue; it has room again once Kafka has answered.
        self.settle()
        return self._publisher.send(topic, key, value, headers, partition)
