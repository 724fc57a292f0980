"""Records handed to a store as a worker hands a batch over."""

from collections.abc import Sequence

from tasks.message import Record
from tasks.store.batches import BatchStore, Stored
from tasks.store.spans import Source, Span
from tasks.worker.persist import decode_all

SOURCE = Source("topic", "id", 0)
OTHER_SOURCE = Source("other", "id", 0)


def span_of(records: Sequence[Record]) -> Span:
    """The offsets from the first record to the last."""
    source = Source(records[0].topic, SOURCE.topic_id, records[0].partition)
    return Span(source, records[0].offset, records[-1].offset + 1)


def store_all(store: BatchStore, records: Sequence[Record]) -> Stored:
    """Store a batch of these records."""
    return store.store_batch(span_of(records), records, *decode_all(records))
