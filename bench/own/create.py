"""A task with an INSERT by Peewee's create, exactly once."""

from peewee import BigIntegerField, Model, TextField

from tasks import Message, database, task


class Effect(Model):
    """A row for each message."""

    message = TextField(primary_key=True)
    number = BigIntegerField()

    class Meta:
        database = database
        table_name = "effect"


@task(on="*", transaction=True)
def create(message: Message) -> None:
    """Insert a row."""
    Effect.create(message=message.id, number=message.offset)
