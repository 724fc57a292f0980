"""The messages that every contestant drains: JSON of about 250 bytes, mixed types. Their field `id` is data."""

import random
import uuid
from collections.abc import Iterator

import orjson
from confluent_kafka import Producer
from tqdm import tqdm

_TYPES = ("order.created", "order.paid", "order.shipped", "cart.updated", "user.signed_in")


def generate(count: int, seed: int) -> Iterator[tuple[bytes, bytes]]:
    """`count` pairs of key and value, the same for the same seed."""
    chance = random.Random(seed)
    for number in range(count):
        value = {
            "id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            "type": chance.choice(_TYPES),
            "customer": f"customer-{chance.randrange(50_000)}",
            "total": round(chance.uniform(1, 500), 2),
            "currency": "EUR",
            "items": [
                {"sku": f"sku-{chance.randrange(9_999):04}", "quantity": chance.randrange(1, 9)} for _ in range(2)
            ],
            "note": "x" * chance.randrange(10, 40),
            "number": number,
        }
        yield str(chance.randrange(50_000)).encode(), orjson.dumps(value)


def produce(brokers: str, topic: str, count: int, seed: int, random_ids: bool = False) -> None:
    """Produce the messages to a topic, distributed over its partitions by key, perhaps with random ids of their own."""
    producer = Producer(
        {"bootstrap.servers": brokers, "acks": "all", "linger.ms": 50, "queue.buffering.max.messages": 500_000}
    )
    for key, value in tqdm(generate(count, seed), total=count, desc="producing", unit="msg", mininterval=1):
        headers = [("message-id", str(uuid.uuid4()).encode())] if random_ids else None
        producer.produce(topic, value, key, headers=headers)
        producer.poll(0)
    producer.flush()
