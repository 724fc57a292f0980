"""The only way from HTTP to Kafka: messages are produced in order, waited for together, counted and traced."""

import time
from collections.abc import Callable, Sequence

from api.requests import Outgoing
from api.services import services
from bridge.kafka.publisher import Place
from tasks.errors import BackendError
from tasks.observability import metrics, traces

_EndSpan = Callable[[Exception | None], None]


def publish(messages: Sequence[Outgoing]) -> list[Place | BackendError]:
    """Produce messages to Kafka in order; for each its place, or the error that says whether it may be stored.

    All messages are sent before the first one is waited for.
    """
    began = time.monotonic()
    outcomes = [_wait(*sent) for sent in [_send(message) for message in messages]]
    accepted: dict[str, int] = {}
    for outcome in outcomes:
        if isinstance(outcome, Place):
            accepted[outcome.topic] = accepted.get(outcome.topic, 0) + 1
    for topic, count in accepted.items():
        metrics.PUBLISH_SECONDS.observe(time.monotonic() - began, topic)
        metrics.ACCEPTED.add(count, topic)
    return outcomes


def _send(message: Outgoing) -> tuple[Callable[[], Place] | BackendError, _EndSpan]:
    headers, end = traces.sending(message.topic, message.headers)
    try:
        return services().publisher.send(message.topic, message.key, message.value, headers), end
    except BackendError as error:
        return error, end


def _wait(wait: Callable[[], Place] | BackendError, end: _EndSpan) -> Place | BackendError:
    try:
        outcome = wait if isinstance(wait, BackendError) else wait()
    except BackendError as error:
        outcome = error
    end(outcome if isinstance(outcome, BackendError) else None)
    return outcome
