"""Assertions about the tables and the consumer group, and waits for them."""

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.clients import Clients
from tests.waiting import wait_until


class Assertions(Clients):
    """Assertions that fail with what they found."""

    def count(self) -> int:
        """Messages and dead letters together."""
        return int(self.sql("SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM dead_letter)")[0][0])

    def wait_for(self, count: int, seconds: float = 60) -> None:
        """Wait until so many messages and dead letters are stored."""
        wait_until(lambda: self.count() >= count, f"{count} records are stored", seconds)
        assert self.count() == count

    def ids(self) -> set[str]:
        """The field `id` of stored payloads, which distinguishes `events`; without it, the message's id."""
        return {str(row[0]) for row in self.sql("SELECT coalesce(payload->>'id', id::text) FROM message")}

    def holds_exactly(self, made: Iterable[str]) -> None:
        """The promise: everything that Kafka acknowledged is stored once, and nothing else is."""
        wanted = set(made)
        assert self.ids() == wanted
        assert self.count() == len(wanted)

    def under_load(self, made: Mapping[str, bytes], times: int) -> Iterator[int]:
        """Produce `made` in parts, and yield at a random moment while each part is stored: the number produced so far.

        Some moments are immediate, so that what was restarted after the last one may still be starting.
        """
        seed = random.randrange(10**6)
        chance = random.Random(seed)
        print(f"seed {seed}")
        values, size = list(made.values()), len(made) // times
        for number in range(times):
            moment = self.count() + chance.choice((0, chance.randrange(size)))
            self.produce(values[number * size : (number + 1) * size])
            wait_until(partial(self._holds, moment), "the load is under way", 60)
            yield (number + 1) * size

    def _holds(self, least: int) -> bool:
        return self.count() >= least

    def obligations(self) -> int:
        """Chunks, calls, and runs that are to be retried: what the users' tasks have still to do."""
        retrying = "SELECT count(*) FROM run WHERE state IN ('waiting', 'retrying')"
        return int(self.sql(f"SELECT (SELECT count(*) FROM chunk) + ({retrying})")[0][0])

    def effects(self, task: str) -> Counter[str]:
        """The ids of messages for which a task of tests/user_tasks.py had its effect."""
        return Counter(message for (message,) in self.sql("SELECT message FROM effect WHERE task = %s", task))

    def all_committed(self) -> None:
        """Wait until the group has committed all of the topic, so that nothing is read again."""
        group = {"bootstrap.servers": self.variables["KAFKA_BROKERS"], "group.id": self.variables["KAFKA_GROUP_ID"]}
        consumer = Consumer(group)
        partitions = [TopicPartition(self.topic, n) for n in range(int(self.variables["KAFKA_PARTITIONS"]))]

        def committed() -> bool:
            try:
                ends = [consumer.get_watermark_offsets(partition, timeout=10)[1] for partition in partitions]
                found = consumer.committed(partitions, timeout=10)
            except KafkaException:  # a broker that has just started looks for its coordinators first
                return False
            return [max(partition.offset, 0) for partition in found] == ends

        wait_until(committed, "the group has committed all of the topic")
        consumer.close()

    def stored_within(self, seconds: float, what: str) -> None:
        """Wait until more is stored than now, and print how long that took."""
        before, began = self.count(), time.monotonic()
        wait_until(lambda: self.count() > before, f"records are stored again after {what}", seconds)
        print(f"stored again {time.monotonic() - began:.1f} s after {what}")
