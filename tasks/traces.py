"""One trace from the HTTP request through Kafka and Celery to SQL, when a collector is given; else nothing is paid.

OpenTelemetry is imported by `begin` alone. A context travels as W3C `traceparent`: in the HTTP header, in the
Kafka header, in a batch's claim. A batch of one message goes on with its trace; one of many has a trace of its
own, with links to theirs, as OpenTelemetry's conventions for messaging have it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

HEADER = "traceparent"
RecordHeaders = list[tuple[str, bytes]]
_MOST_LINKS = 128  # what the SDK keeps of a span's links
_LONGEST_SECONDS = 3  # of all tries to send: a collector that is away must not hold up a process's end
_NOTHING: AbstractContextManager[None] = nullcontext()
_tracer: "Tracer | None" = None
_flush: Callable[[], object] = bool


def begin(endpoint: str | None, process: str, version: str) -> None:
    """Trace from now on, if there is a collector. To be called in each process, after its last fork."""
    global _tracer, _flush
    if endpoint is None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = {"service.name": f"backend-{process}", "service.version": version, "service.namespace": "message-backend"}
    provider = TracerProvider(resource=Resource.create(own))
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_LONGEST_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer, _flush = provider.get_tracer("backend", version), provider.force_flush


def end() -> None:
    """Send what is left, where a process ends without Python's own clearing up."""
    _flush()


def wanted() -> bool:
    """Whether there is a collector, for callers that would have to find out what to tell it."""
    return _tracer is not None


def request(method: str, route: str, path: str, parent: str | None) -> AbstractContextManager[None]:
    """The span of an HTTP request, which goes on with its client's trace. Only where traces are wanted."""
    told = {"http.request.method": method, "http.route": route, "url.path": path}
    return _span(f"{method} {route}", "SERVER", told, _context(parent))


def sending(topic: str, headers: RecordHeaders) -> tuple[RecordHeaders, Callable[[Exception | None], None]]:
    """Begin the span of a message's way to Kafka: its headers with its context, and what ends the span.

    That is called once it is known whether Kafka has the message, with the error if it does not.
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
    """The contexts in the headers of a batch's records, no more than can be linked to."""
    if _tracer is None:
        return ()
    found: list[str] = []
    for record in records:
        for name, raw in record.headers:
            if name == HEADER and raw is not None:
                found.append(raw.decode("latin-1"))
        if len(found) >= _MOST_LINKS:
            break
    return tuple(found)


@contextmanager
def handing_over(topic: str, records: int, attempt: int, found: Sequence[str]) -> Iterator[str]:
    """The span of a batch's hand-over; yields the context for its claim, empty without traces."""
    if _tracer is None:
        yield ""
        return
    told = {**_messaging(topic, "receive"), "messaging.batch.message_count": records, "backend.attempt": attempt}
    parent = found[0] if records == 1 and found else None
    with _span(f"receive {topic}", "CONSUMER", told, _context(parent), () if parent else found):
        yield _carried()


def storing(topic: str, fields: Mapping[str, Any], parent: str) -> AbstractContextManager[None]:
    """The span of a batch in its worker, a child of its hand-over."""
    if _tracer is None:
        return _NOTHING
    told = {**_messaging(topic, "process"), "messaging.batch.message_count": fields["records"]}
    told |= {f"backend.{name}": value for name, value in fields.items() if name not in ("topic", "records")}
    return _span(f"process {topic}", "CONSUMER", told, _context(parent))


def sql(statement: str) -> AbstractContextManager[None]:
    """The span of a statement, whose values must not be in its text; none where nothing else is traced."""
    if _tracer is None or not _carried():
        return _NOTHING
    told = {"db.system.name": "postgresql", "db.query.text": statement}
    return _span(statement.split(None, 1)[0].upper(), "CLIENT", told)


def tell(name: str, value: Any) -> None:
    """Add what is known only now to the present span."""
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
    name: str, kind: str, told: Mapping[str, Any], parent: "Context | None" = None, links: Sequence[str] = ()
) -> Iterator[None]:
    """A span, current within; an error that passes through it is noted, as OpenTelemetry does."""
    from opentelemetry.trace import Link, SpanKind, get_current_span

    assert _tracer is not None
    linked = [Link(get_current_span(_context(link)).get_span_context()) for link in links]
    with _tracer.start_as_current_span(name, parent, SpanKind[kind], told, linked):
        yield


def _context(text: str | None) -> "Context | None":
    """The context that `text` stands for; a new trace where it is none."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({HEADER: text or ""}, Context())


def _carried(context: "Context | None" = None) -> str:
    """A context as text, the present one when none is given; empty outside of every trace."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, context)
    return carrier.get(HEADER, "")
