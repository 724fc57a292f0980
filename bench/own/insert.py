"""A task with an INSERT through a cursor, exactly once."""

from tasks import Message, database, task


@task(on="*", transaction=True)
def insert(message: Message) -> None:
    """Insert a row."""
    with database.cursor() as cursor:
        cursor.execute("INSERT INTO effect VALUES (%s, %s)", (message.id, message.offset))
