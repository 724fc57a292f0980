"""Traces from the HTTP request through Kafka and Celery to SQL, if a collector is configured.

Only `begin` imports OpenTelemetry, so tracing that is off costs nothing. A context travels as W3C `traceparent`: in
the HTTP header, in the Kafka header, in the claim of a batch. A batch of one message continues its trace; a larger
batch has its own trace with links to those of its messages, as OpenTelemetry's conventions for messaging say. So does
a run of a users' function, which may be long after its message was stored.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

    from tasks.declaration import Message

HEADER = "traceparent"
RecordHeaders = list[tuple[str, bytes]]
_MOST_LINKS = 128  # the SDK's limit of links for a span
_LONGEST_SECONDS = 3  # for all attempts to export: an unreachable collector must not delay the end of a process
_NOTHING: AbstractContextManager[None] = nullcontext()
_tracer: "Tracer | None" = None
_flush: Callable[[], object] = bool


def begin(endpoint: str | None, process: str, version: str) -> None:
    """Start tracing, if there is a collector. Call it in each process, after its last fork."""
    global _tracer, _flush
    if endpoint is None:
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = {"service.name": f"backend-{process}", "service.version": version, "service.namespace": "message-backend"}
    provider = TracerProvider(resource=Resource.create(own))
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_LONGEST_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer, _flush = provider.get_tracer("backend", version), provider.force_flush
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)  # spans that the users' functions make go there too, if they chose no other


def end() -> None:
    """Send the remaining spans, in a process that ends without Python's own cleanup."""
    _flush()


def enabled() -> bool:
    """Whether there is a collector, for callers that would compute attributes only for it."""
    return _tracer is not None


def request(method: str, route: str, path: str, parent: str | None) -> AbstractContextManager[None]:
    """The span of an HTTP request, which continues the trace of its client. Only if tracing is on."""
    attributes = {"http.request.method": method, "http.route": route, "url.path": path}
    return _span(f"{method} {route}", "SERVER", attributes, _context(parent))


def sending(topic: str, headers: RecordHeaders) -> tuple[RecordHeaders, Callable[[Exception | None], None]]:
    """Begin the span of publishing a message; returns its headers with the context, and a function that ends the span.

    Call that function once it is known whether Kafka has the message, with the error if it does not.
    """
    if _tracer is None:
        return headers, _ignore
    from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

    span = _tracer.start_span(f"send {topic}", kind=SpanKind.PRODUCER, attributes=_messaging(topic, "send"))

    def sent(error: Exception | None) -> None:
        if error is not None:
            span.record_exception(error)
            span.set_status(StatusCode.ERROR, str(error))
        span.end()

    own = (HEADER, _carried(set_span_in_context(span)).encode())
    return [*(header for header in headers if header[0] != HEADER), own], sent


def _ignore(error: Exception | None) -> None:
    pass


def contexts(records: Sequence[Any]) -> tuple[str, ...]:
    """The contexts in the headers of a batch's records, at most as many as a span can link to."""
    if _tracer is None:
        return ()
    values: list[str] = []
    for record in records:
        for name, raw in record.headers or ():
            if name == HEADER and raw is not None:
                values.append(raw.decode("latin-1"))
        if len(values) >= _MOST_LINKS:
            break
    return tuple(values)


@contextmanager
def handing_over(topic: str, records: int, attempt: int, contexts: Sequence[str]) -> Iterator[str]:
    """The span of handing over a batch; yields the context for its claim, which is empty without tracing."""
    if _tracer is None:
        yield ""
        return
    attributes = {**_messaging(topic, "receive"), "messaging.batch.message_count": records, "backend.attempt": attempt}
    parent = contexts[0] if records == 1 and contexts else None
    with _span(f"receive {topic}", "CONSUMER", attributes, _context(parent), () if parent else contexts):
        yield _carried()


def storing(topic: str, fields: Mapping[str, Any], parent: str) -> AbstractContextManager[None]:
    """The span of a batch in its worker, a child of the bridge's span."""
    if _tracer is None:
        return _NOTHING
    attributes = {**_messaging(topic, "process"), "messaging.batch.message_count": fields["records"]}
    attributes |= {f"backend.{name}": value for name, value in fields.items() if name not in ("topic", "records")}
    return _span(f"process {topic}", "CONSUMER", attributes, _context(parent))


def running(task: str, messages: "Sequence[Message]") -> AbstractContextManager[None]:
    """The span of a call of a users' function, which is current inside it."""
    if _tracer is None:
        return _NOTHING
    first, many = messages[0], len(messages) > 1
    place = {} if first.topic is None else _messaging(first.topic, "process")  # a call has none
    attributes = {**place, "backend.task": task, "backend.attempt": first.attempt}
    attributes |= {"messaging.batch.message_count": len(messages)} if many else {"messaging.message.id": first.id}
    carried = [message.headers[HEADER] for message in messages if HEADER in message.headers]
    if many:
        return _span(f"run {task}", "CONSUMER", attributes, _context(None), carried[:_MOST_LINKS])
    return _span(f"run {task}", "CONSUMER", attributes, _context(carried[0] if carried else None))


def sql(statement: str) -> AbstractContextManager[None]:
    """The span of a statement, whose text must contain no values; none outside of another span."""
    if _tracer is None or not _carried():
        return _NOTHING
    attributes = {"db.system.name": "postgresql", "db.query.text": statement}
    return _span(statement.split(None, 1)[0].upper(), "CLIENT", attributes)


def tell(name: str, value: Any) -> None:
    """Add attributes to the current span."""
    if _tracer is None:
        return
    from opentelemetry.trace import get_current_span

    get_current_span().set_attribute(name, value)


def _messaging(topic: str, operation: str) -> dict[str, Any]:
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": topic,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }


@contextmanager
def _span(
    name: str, kind: str, attributes: Mapping[str, Any], parent: "Context | None" = None, links: Sequence[str] = ()
) -> Iterator[None]:
    """A span that is current inside the block; an error that passes through is recorded, as OpenTelemetry does."""
    from opentelemetry.trace import Link, SpanKind, get_current_span

    assert _tracer is not None
    linked = [Link(get_current_span(_context(link)).get_span_context()) for link in links]
    with _tracer.start_as_current_span(name, parent, SpanKind[kind], attributes, linked):
        yield


def _context(text: str | None) -> "Context | None":
    """The context in `text`; a new trace if it is not valid."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({HEADER: text or ""}, Context())


def _carried(context: "Context | None" = None) -> str:
    """A context as text, by default the current one; empty outside of a trace."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, context)
    return carrier.get(HEADER, "")
