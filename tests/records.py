"""Records handed to a store as a worker hands a batch over."""

from collections.abc import Sequence

from tasks.message import Record
from tasks.store.batches import BatchStore, Stored
from tasks.store.spans import Span
from tasks.worker.persist import decode_all


def span_of(records: Sequence[Record], source: int = 1) -> Span:
    """The offsets from the first record to the last."""
    return Span(source, records[0].offset, records[-1].offset + 1)


def store_all(store: BatchStore, records: Sequence[Record], source: int = 1) -> Stored:
    """Store a batch of these records."""
    return store.store_batch(span_of(records, source), records, *decode_all(records))
