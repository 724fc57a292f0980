"""With a collector, one trace leads from the HTTP request through Kafka and Celery to SQL."""

import requests
from opentelemetry.proto.trace.v1.trace_pb2 import Span

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


def test_a_collector_that_is_away_costs_no_message(ready: World) -> None:
    nowhere = "http://127.0.0.1:9"
    ready.serve(otel_exporter_otlp_endpoint=nowhere)
    ready.consume(otel_exporter_otlp_endpoint=nowhere)
    for number in range(20):
        assert ready.post(n=number).status_code == 202
    ready.wait_for(20)
