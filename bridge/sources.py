"""How far PostgreSQL has stored each partition, which says where it is read from; asked in the reporter's thread."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.kafka.types import TopicPartition
from tasks.store import spans
from tasks.store.spans import Source


class Question(NamedTuple):
    """What is asked of a partition."""

    source: Source
    begin: int  # where its reading begins if PostgreSQL does not know it
    stored: int | None  # the offset before which workers had stored all when this was asked


@dataclass(frozen=True)
class Answer:
    """The offsets before which all is stored, of the partitions that were asked for."""

    questions: Mapping[TopicPartition, Question] = field(default_factory=dict)
    stored_until: Mapping[Source, int] = field(default_factory=dict)


class Sources:
    """Asks again and again: at once about a new partition, and about all with each report."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` makes the reporter's thread call `look` soon."""
        self._wake = wake
        self._questions: Mapping[TopicPartition, Question] = {}
        self._gone: dict[Source, int] = {}
        self.answer = Answer()  # replaced as a whole, because another thread reads it

    def ask(self, questions: Mapping[TopicPartition, Question]) -> None:
        """Ask about these partitions from now on, instead of others."""
        known = self.answer.stored_until
        self._questions = questions
        if any(question.source not in known for question in questions.values()):
            self._wake()

    def register_gone(self, source: Source, begin: int) -> None:
        """Register once more a source that nobody asks for: its topic was recreated, and a batch of it failed.

        A PostgreSQL that was restored may not know it, and stores the batch only if it does.
        """
        self._gone.setdefault(source, begin)

    def look(self) -> None:
        """Ask PostgreSQL. Raises peewee.DatabaseError."""
        questions, gone = self._questions, dict(self._gone)
        begins = gone | {question.source: question.begin for question in questions.values()}
        self.answer = Answer(questions, spans.stored_until(begins) if begins else {})
        for source in gone:
            del self._gone[source]
