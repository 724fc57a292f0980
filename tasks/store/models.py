"""The tables as Peewee models, and the row of `message`. `tasks/store/migrations.py` creates the tables."""

import uuid
from datetime import datetime
from typing import NamedTuple

from peewee import (
    BigIntegerField,
    BlobField,
    CompositeKey,
    DateTimeField,
    Field,
    IntegerField,
    Model,
    TextField,
    UUIDField,
)

from tasks.store.connection import database


class JsonTextField(Field):
    """jsonb, read and written as JSON text (see `Database`)."""

    field_type = "JSONB"


class StoredMessage(NamedTuple):
    """A row of `message`. Its fields are the columns that are read and written; no other list of them exists.

    `headers` and `payload` are JSON text as PostgreSQL returns it, so that no number loses digits. If a message is too
    large to be shown, they are None, `type` and `key` are cut, and `length` is set.
    """

    id: uuid.UUID
    type: str | None
    key: str | None
    topic: str
    partition: int
    offset: int
    produced_at: datetime | None  # None: the record has no timestamp, or one outside the years 1 to 9999
    stored_at: datetime
    headers: str | None
    payload: str | None
    length: int | None = None  # not a column: bytes of text, if it is too large to be shown


COLUMNS = StoredMessage._fields[:-1]


class Message(Model):
    """A message. The table is one of leaves (tasks/store/leaves.py), so its key is not one that PostgreSQL checks."""

    id = UUIDField()
    topic = TextField()
    partition = IntegerField()
    offset = BigIntegerField()
    produced_at = DateTimeField(null=True)
    stored_at = DateTimeField()
    type = TextField(null=True)
    key = TextField(null=True)
    headers = JsonTextField(null=True)
    payload = JsonTextField(null=True)

    class Meta:
        database = database
        table_name = "message"
        primary_key = CompositeKey("id", "topic", "stored_at")


class DeadLetter(Model):
    """A record that could not become a message, stored once with its bytes, the reason, and its state."""

    id = UUIDField(primary_key=True)
    message_id = UUIDField(null=True)
    topic = TextField()
    partition = IntegerField()
    offset = BigIntegerField()
    produced_at = DateTimeField(null=True)
    dead_at = DateTimeField()
    reason = TextField()
    detail = TextField()
    key = BlobField(null=True)
    value = BlobField(null=True)
    headers = JsonTextField(null=True)  # [[name, base64 of the value or null], ...]: order and bytes as they were
    state = TextField()  # waiting, then redriven or discarded
    handled_at = DateTimeField(null=True)
    note = TextField(null=True)

    class Meta:
        database = database
        table_name = "dead_letter"


class Bridge(Model):
    """The last status of a running bridge."""

    member = TextField(primary_key=True)
    reported_at = DateTimeField()
    status = JsonTextField()

    class Meta:
        database = database
        table_name = "bridge"


class StoppedPartition(Model):
    """A partition that a consumer group does not read, because too many of its records became dead letters."""

    topic = TextField()
    partition = IntegerField()
    group = TextField()
    reason = TextField()
    limit_percent = IntegerField()  # the share of dead letters that was allowed
    stopped_at = DateTimeField()

    class Meta:
        database = database
        table_name = "stopped_partition"
        primary_key = CompositeKey("topic", "partition", "group")


class LostRecords(Model):
    """Offsets that Kafka deleted before a consumer group read them, until somebody acknowledges that."""

    topic = TextField()
    partition = IntegerField()
    group = TextField()
    first_offset = BigIntegerField()
    last_offset = BigIntegerField()
    noticed_at = DateTimeField()
    acknowledged_at = DateTimeField(null=True)
    note = TextField(null=True)

    class Meta:
        database = database
        table_name = "lost_records"
        primary_key = CompositeKey("topic", "partition", "group", "first_offset", "noticed_at")
