"""Five tasks that do nothing."""

from tasks import Message, task


def _nothing(message: Message) -> None:
    pass


first, second, third, fourth, fifth = (task(on="*", name=f"five-{number}")(_nothing) for number in range(1, 6))
