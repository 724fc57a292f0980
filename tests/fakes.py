"""A claim store, a batch store and a publisher in memory, for unit tests of the logic above them.

They pass the same tests as the real ones: test_claim_store.py, test_batch_store.py and test_publisher.py in
tests/integration.
"""

import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from bridge.kafka.publisher import Place, Refused
from tasks.claim_check import Claim, ClaimStatus, Result
from tasks.message import CHANGING_HEADERS, NO_BODY, OUTBOX_HEADER, Headers, Message, Record, record_id, sender_id
from tasks.store.batch_copy import Duplicate
from tasks.store.batches import Dead, Stored
from tasks.store.calls import Call
from tasks.store.spans import Span


class MemoryClaimStore:
    """A ClaimStore for one worker. Raises `failure` while it is set; `lose_everything` is a wiped Redis."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.is_worker_alive = True
        self._changed = threading.Condition()
        self.lose_everything()

    def lose_everything(self) -> None:
        self._records: dict[str, bytes] = {}
        self._taken: set[str] = set()
        self._decoded: set[str] = set()
        self._results: dict[str, list[Result]] = defaultdict(list)

    def put(self, claim: Claim, packed: bytes) -> None:
        self._fail()
        self._records[claim.key] = packed

    def take(self, claim: Claim) -> bytes | None:
        self._fail()
        self._taken.add(claim.key)
        return self._records.get(claim.key)

    def mark_decoded(self, claim: Claim) -> None:
        self._fail()
        self._decoded.add(claim.key)

    def is_decoding(self, claim: Claim) -> bool:
        self._fail()
        return claim.key in self._records and claim.key not in self._decoded

    def discard(self, claim: Claim) -> None:
        self._fail()
        self._records.pop(claim.key, None)
        self._taken.discard(claim.key)
        self._decoded.discard(claim.key)

    def report(self, claim: Claim, result: Result) -> None:
        self._fail()
        self.discard(claim)
        with self._changed:
            self._results[claim.reply_to].append(result)
            self._changed.notify_all()

    def results(self, reply_to: str, wait_seconds: float) -> list[Result]:
        self._fail()
        with self._changed:
            if wait_seconds > 0:
                self._changed.wait_for(lambda: self._results[reply_to], wait_seconds)
            return self._results.pop(reply_to, [])

    def length(self, queue: str) -> int:
        self._fail()
        return len(self._results[queue])

    def status(self, claims: Sequence[Claim]) -> list[ClaimStatus]:
        self._fail()
        return [self._status(claim) for claim in claims]

    def send_heartbeat(self) -> None:
        self._fail()

    def _status(self, claim: Claim) -> ClaimStatus:
        if claim.key not in self._records:
            return "lost"
        if claim.key not in self._taken:
            return "waiting"
        return "taken" if self.is_worker_alive else "lost"

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class MemoryBatchStore:
    """A BatchStore. Raises `failure` while it is set, and then stores nothing."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.messages: dict[tuple[str, bytes], tuple[int, Message]] = {}  # (topic, id) -> partition and message
        self.dead: dict[bytes, Dead] = {}  # by the id of the record's place
        self.calls: dict[uuid.UUID, Call] = {}

    def store_batch(
        self,
        span: Span,
        records: Sequence[Record],
        messages: Sequence[Message],
        dead: Sequence[Dead],
        seconds: float = 60,
        calls: Sequence[Call] = (),
    ) -> Stored:
        self._fail()
        known = {record.offset for record in records if record_id(record) in self.dead}
        topic, partition = records[0].topic, records[0].partition
        by_offset = {record.offset: record for record in records}
        stored = 0
        duplicates: list[Duplicate] = []
        new = [one for one in dead if one.record.offset not in known and not self._is_stored(one.record)]
        for message in messages:
            if message.offset in known:
                continue
            stored_partition, first = self.messages.setdefault((topic, message.id), (partition, message))
            if first is message:
                stored += 1
            elif (stored_partition, first.offset, first.timestamp) == (partition, message.offset, message.timestamp):
                continue
            elif _content(first) == _content(message):
                duplicates.append(Duplicate(message, stored_partition, first.offset))
            else:
                detail = f"a different message has the id {uuid.UUID(bytes=message.id)}"
                new.append(Dead(by_offset[message.offset], "id_conflict", detail, message.id))
        for one in new:
            self.dead[record_id(one.record)] = one
        called = {call.id: call for call in reversed(calls) if call.id not in self.calls}
        self.calls |= called
        stored += len(called)
        tasks = tuple(sorted({call.task for call in called.values()}))
        return Stored(stored, len(records) - stored - len(duplicates) - len(new), duplicates, new, tasks)

    def _is_stored(self, record: Record) -> bool:
        message_id = sender_id(record.headers, NO_BODY) or record_id(record)
        _, message = self.messages.get((record.topic, message_id), (0, None))
        return message is not None and message.offset == record.offset

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class MemoryPublisher:
    """Keeps messages in a list; without a partition they go to the first. Raises `failure` when it is set."""

    def __init__(self, partitions: int = 1) -> None:
        self._partitions = partitions
        self.records: list[Record] = []
        self.failure: Exception | None = None
        self._lock = threading.Lock()

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None
    ) -> Callable[[], Place]:
        if self.failure is not None:
            raise self.failure
        place = self._keep(topic, key, value, headers, partition or 0)
        return lambda: place

    def _keep(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int) -> Place:
        if not 0 <= partition < self._partitions:
            raise Refused(f"topic {topic} has no partition {partition}")
        with self._lock:
            offset = sum(record[:2] == (topic, partition) for record in self.records)
            self.records.append(Record(topic, partition, offset, 0, key, value, headers))
        return Place(topic, partition, offset)

    def unavailable_reason(self) -> str | None:
        return None if self.failure is None else str(self.failure)


def _content(message: Message) -> tuple[Any, ...]:
    headers = orjson.loads(message.headers or b"{}")
    outbox_id = str(headers.pop(OUTBOX_HEADER, "")).lower()
    compared = {name: value for name, value in headers.items() if name not in CHANGING_HEADERS}
    payload = None if message.payload is None else orjson.loads(message.payload)
    return message.type, message.key, payload, outbox_id, compared
