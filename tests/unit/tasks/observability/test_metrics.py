"""Each metric is declared once, used, and bounded; without a collector nothing of OpenTelemetry is paid for."""

import ast
import subprocess
import sys

import pytest

from tasks.observability import metrics
from tests.programs import ROOT

USES = [
    node
    for folder in ("tasks", "bridge", "api")
    for path in (ROOT / folder).rglob("*.py")
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Call)
    and isinstance(node.func, ast.Attribute)
    and node.func.attr in ("add", "set", "observe")
]
DECLARED = {name: value for name, value in vars(metrics).items() if isinstance(value, metrics.Metric)}
BOUNDED = {"topic", "partition", "problem", "reason", "route", "method", "status", "version", "broker"} | {
    "task",
    "outcome",
}


def test_every_metric_is_declared_once_and_used() -> None:
    assert sorted(metric.name for metric in DECLARED.values()) == sorted(metrics.CATALOGUE)
    used = {ast.unparse(node.func).rpartition(".")[0].removeprefix("metrics.") for node in USES}
    used |= {"HANDED_OVER", "REDELIVERED_BATCHES"} if any("REDELIVERED_BATCHES if" in name for name in used) else set()
    assert not DECLARED.keys() - used


@pytest.mark.parametrize("metric", metrics.CATALOGUE.values(), ids=lambda metric: metric.name)
def test_a_metric_is_named_by_the_rules_and_its_labels_are_few(metric: metrics.Metric) -> None:
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert set(metric.labels) <= BOUNDED
    assert metric.meaning and not metric.meaning.endswith(".")


def test_without_a_collector_opentelemetry_is_not_imported() -> None:
    code = """
import sys
from api.app import create_app
from tasks.config import settings
from tasks.observability import setup, traces
from tests.fakes import MemoryPublisher
loaded = settings.load({}, {})
setup.begin(loaded, "test")
create_app(loaded, MemoryPublisher()).test_client().post("/messages", json={})
traces.sql("SELECT 1").__enter__()
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
import tasks.worker.persist  # redis-py looks for the metrics of OpenTelemetry by itself
assert not {"opentelemetry.sdk.trace", "opentelemetry.exporter"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], env={}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
