"""The tables as Peewee models. Their columns and indexes are made by the migrations in `tasks/schema.py`."""

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

from tasks.database import database


class JsonTextField(Field):
    """jsonb, read and written as JSON text (see `Database`)."""

    field_type = "JSONB"


class Message(Model):
    """A message, kept exactly once by its id in its topic."""

    id = UUIDField()
    topic = TextField()
    partition = IntegerField()
    offset = BigIntegerField()
    produced_at = DateTimeField()
    stored_at = DateTimeField()
    type = TextField(null=True)
    key = TextField(null=True)
    headers = JsonTextField(null=True)
    payload = JsonTextField(null=True)

    class Meta:
        database = database
        table_name = "message"
        primary_key = CompositeKey("id", "topic")


class DeadLetter(Model):
    """A record that could not be a message, kept once with its original bytes, the reason, and what was done."""

    id = UUIDField(primary_key=True)
    message_id = UUIDField(null=True)
    topic = TextField()
    partition = IntegerField()
    offset = BigIntegerField()
    produced_at = DateTimeField()
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
    """What a bridge that runs said of itself last."""

    member = TextField(primary_key=True)
    reported_at = DateTimeField()
    status = JsonTextField()

    class Meta:
        database = database
        table_name = "bridge"


class StoppedPartition(Model):
    """A partition that a consumer group does not read because too much of it went to dead_letter."""

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
