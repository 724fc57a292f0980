"""Puts dead letters back into their topics, and marks each as redriven once Kafka has acknowledged it."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from bridge.publisher import Place, Publisher, Refused
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
    batch = Batch([], {})
    on_their_way: dict[uuid.UUID, Callable[[], Place]] = {}
    for letter in letters:
        record = dead_letters.redriven(letter)
        try:
            on_their_way[letter.id] = publisher.send(record.topic, record.key, record.value, record.headers)
        except BackendError as error:
            batch.failed[letter.id] = error
            if batch.outage:  # each further one would wait as long for the same answer
                break
    for letter_id, answer in on_their_way.items():
        try:
            place = answer()
        except BackendError as error:
            batch.failed[letter_id] = error
            continue
        batch.redriven.append(letter_id)
        telemetry.emit(
            "dead_letter.redriven", id=letter_id, topic=place.topic, partition=place.partition, offset=place.offset
        )
    for letter_id, failure in batch.failed.items():
        telemetry.emit("dead_letter.unsent", id=letter_id, reason=str(failure))
    return batch
