"""With a collector, one trace leads from the HTTP request through Kafka and Celery to SQL."""

import requests
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.clients import events
from tests.collector import Collector
from tests.waiting import wait_until
from tests.world import World

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT = "00f067aa0ba902b7"


def test_a_lone_message_has_one_trace_from_its_client_to_sql(ready: World) -> None:
    with Collector() as collector:
        ready.serve(otel_exporter_otlp_endpoint=collector.url)
        ready.consume(otel_exporter_otlp_endpoint=collector.url)
        headers = {"traceparent": f"00-{TRACE}-{CLIENT}-01"}
        accepted = requests.post(f"{ready.url}/messages", json={"type": "traced"}, headers=headers, timeout=10)
        assert accepted.status_code == 202
        ready.wait_for(1)
        chain = [
            ("backend-serve", "POST /messages"),
            ("backend-serve", f"send {ready.topic}"),
            ("backend-bridge", f"receive {ready.topic}"),
            ("backend-worker", f"process {ready.topic}"),
            ("backend-worker", "COPY"),
        ]
        wait_until(lambda: all(collector.named(*link) for link in chain), "all spans arrive")
    parent = CLIENT
    for link in chain:
        found = collector.named(*link)
        assert len(found) == (2 if link[1] == "COPY" else 1), "the id is copied, and the message"
        for span in found:
            assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, parent), link
        parent = found[0].span_id.hex()
    assert ready.get(accepted.json()["id"])["headers"]["traceparent"].startswith(f"00-{TRACE}-")


def test_a_batch_of_many_has_a_trace_of_its_own_that_links_to_theirs(ready: World) -> None:
    trace = [f"{number:032x}" for number in range(1, 151)]
    for value, trace_id in zip(events(150).values(), trace, strict=True):
        ready.produce([value], headers=[("traceparent", f"00-{trace_id}-{CLIENT}-01".encode())], partition=0)
    with Collector() as collector:
        ready.consume(otel_exporter_otlp_endpoint=collector.url, linger_ms="2000")
        ready.wait_for(150)

        def received() -> list[Span]:
            return [span for span in collector.named("backend-bridge", "receive") if len(span.links) > 1]

        wait_until(received, "the hand-over arrives")
    span = received()[0]
    linked = [link.trace_id.hex() for link in span.links]
    assert linked == trace[: len(linked)] and len(linked) == 128
    assert span.trace_id.hex() not in trace and not span.parent_span_id


def test_a_run_continues_the_trace_of_its_message_also_when_it_is_retried(ready: World) -> None:
    ready.variables["TASKS"] = "tests.traced_tasks"
    ready.init()
    with Collector() as collector:
        ready.serve(otel_exporter_otlp_endpoint=collector.url)
        ready.consume(otel_exporter_otlp_endpoint=collector.url)
        headers = {"traceparent": f"00-{TRACE}-{CLIENT}-01"}
        posted = requests.post(f"{ready.url}/messages", json={"type": "traced"}, headers=headers, timeout=10)
        assert posted.status_code == 202

        def spans() -> dict[str, list[Span]]:
            parts = ("run traced", "run together", "of the user", "SELECT")
            return {part: collector.named("backend-tasks", part) for part in parts}

        counts = {"run traced": 2, "run together": 1, "of the user": 2, "SELECT": 2}
        wait_until(lambda: {part: len(some) for part, some in spans().items()} == counts, "all spans arrive")
        [sent] = collector.named("backend-serve", f"send {ready.topic}")
    found = spans()
    for span in found["run traced"] + found["run together"]:
        assert (span.trace_id.hex(), span.parent_span_id) == (TRACE, sent.span_id)
    attempts = {_attribute(span, "backend.attempt"): span for span in found["run traced"]}
    assert {number: span.status.code for number, span in attempts.items()} == {1: Status.STATUS_CODE_ERROR, 2: 0}
    assert {span.parent_span_id for span in found["of the user"]} == {span.span_id for span in found["run traced"]}
    assert {span.parent_span_id for span in found["SELECT"]} == {span.span_id for span in found["of the user"]}


def test_a_run_of_many_messages_links_to_their_traces(ready: World) -> None:
    ready.variables["TASKS"] = "tests.traced_tasks"
    ready.init()
    trace = [f"{number:032x}" for number in range(1, 11)]
    for trace_id in trace:
        ready.produce(
            [b'{"type": "traced"}'], headers=[("traceparent", f"00-{trace_id}-{CLIENT}-01".encode())], partition=0
        )
    with Collector() as collector:
        ready.consume(otel_exporter_otlp_endpoint=collector.url, linger_ms="2000")

        def together() -> list[Span]:
            return [span for span in collector.named("backend-tasks", "run together") if len(span.links) > 1]

        wait_until(together, "a run of many arrives")
    span = together()[0]
    assert {link.trace_id.hex() for link in span.links} <= set(trace)
    assert len(span.links) == _attribute(span, "messaging.batch.message_count")
    assert span.trace_id.hex() not in trace and not span.parent_span_id


def _attribute(span: Span, name: str) -> int:
    return int(next(attribute.value.int_value for attribute in span.attributes if attribute.key == name))


def test_a_collector_that_is_away_costs_no_message(ready: World) -> None:
    nowhere = "http://127.0.0.1:9"
    ready.serve(otel_exporter_otlp_endpoint=nowhere)
    ready.consume(otel_exporter_otlp_endpoint=nowhere)
    for number in range(20):
        assert ready.post(n=number).status_code == 202
    ready.wait_for(20)
