"""Tasks that make spans of their own, for tests/scenarios/test_traces.py."""

from collections.abc import Sequence

from opentelemetry import trace

from tasks import Message, database, task

TYPE = "traced"


@task(on=TYPE, name="traced", max_retries=1, retry_backoff=False)
def traced(message: Message) -> None:
    """Fails the first time, inside a span of its own."""
    with trace.get_tracer("shop").start_as_current_span("of the user"):
        database.execute_sql("SELECT 1")
        if message.attempt == 1:
            raise ValueError("the first time")


@task(on=TYPE, name="together", batch=50)
def together(messages: Sequence[Message]) -> None:
    """Does nothing."""
