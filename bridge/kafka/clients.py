"""Makes the Kafka clients of a bridge, and waits for brokers."""

import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from bridge.kafka.confluent_consumer import ConfluentConsumer
from bridge.kafka.types import Consumer
from tasks.config.settings import Settings
from tasks.errors import Unavailable

Client = TypeVar("Client")


def new_consumer(settings: Settings) -> Consumer:
    """A member of the consumer group, not subscribed yet, by the client that KAFKA_CLIENT names.

    Raises Unavailable when no broker responds, AccessDenied when a broker rejects us or is not trusted.
    """
    if settings.kafka_client == "confluent":
        return ConfluentConsumer(settings)
    from bridge.kafka.group_consumer import GroupConsumer  # kafka-python costs each process 10 MB

    return GroupConsumer(settings)


def responds(address: str) -> bool:
    """Whether the broker at `address` (host:port), which needs no credentials, handles requests."""
    try:
        AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=2)
    except KafkaException:
        return False
    return True


def wait_for_brokers(connect: Callable[[], Client], waiting: Callable[[str], bool]) -> Client:
    """Call `connect` until it does not raise Unavailable. `waiting` gets the reason; if it returns False, raises it."""
    delay = 0.2
    while True:
        try:
            return connect()
        except Unavailable as error:
            if not waiting(str(error)):
                raise
            time.sleep(delay)
            delay = min(delay * 2, 2.0)
