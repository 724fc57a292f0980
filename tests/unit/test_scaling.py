"""What the overlays say in numbers fits what the code does, and monitoring asks for metrics that there are."""

import json
import re
from typing import get_args

import pytest

from api import postgresql
from bridge.backpressure import Reason
from tasks.config import settings
from tasks.config.settings import Settings
from tasks.observability.metrics import CATALOGUE, Histogram
from tasks.worker.app import queue
from tests.manifests import KUBE, literal, manifests, named, operations, ours, read

SCALING = "scaled/10-scaling.yaml"


def told() -> Settings:
    """The settings of the pods in kube/scaled."""
    configuration, secret = read(KUBE / "base" / "01-configuration.yaml")[:2]
    (worker,) = (one for one in ours() if one["name"] == "worker")
    return settings.load({}, {**configuration["data"], **secret["stringData"], **literal(worker)})


def grown(name: str) -> tuple[int, dict[str, str]]:
    """The most replicas of a ScaledObject, and what its trigger looks at."""
    spec = named("ScaledObject", name, SCALING)["spec"]
    assert spec["scaleTargetRef"] == {"name": name} and 2 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]
    (trigger,) = spec["triggers"]
    return spec["maxReplicaCount"], trigger["metadata"]


def api_pods() -> int:
    spec = named("HorizontalPodAutoscaler", "backend", SCALING)["spec"]
    return int(spec["maxReplicas"])


def test_what_is_scaled_is_deployed_and_says_no_number_itself() -> None:
    there = {one["metadata"]["name"]: one["spec"] for one in manifests("Deployment")}
    for name in ("bridge", "worker"):
        assert "replicas" not in there[name]
    target = named("HorizontalPodAutoscaler", "backend", SCALING)["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "backend") and "backend" in there
    assert {one["metadata"]["name"] for one in manifests("PodDisruptionBudget")} == {"backend", "bridge", "worker"}


def test_bridges_grow_by_the_lag_of_their_own_group_up_to_the_partitions() -> None:
    most, lag = grown("bridge")
    pods = told()
    assert most == pods.kafka_partitions
    assert (lag["consumerGroup"], (lag["topic"],)) == (pods.kafka_group_id, pods.kafka_topics)
    assert int(lag["lagThreshold"]) > 2 * pods.in_flight * pods.batch_records, "what is in flight is lag too"


def test_workers_grow_by_the_queue_that_the_bridges_fill() -> None:
    most, length = grown("worker")
    pods = told()
    assert length["listName"] == queue(pods)
    assert int(length["listLength"]) == pods.workers, "what waits must be work for a pod more"
    bridges, _ = grown("bridge")
    assert most * pods.workers <= bridges * pods.in_flight, "more would find nothing to take"


def test_postgresql_has_connections_for_as_many_pods_as_there_may_be() -> None:
    pods = told()
    bridges, workers = grown("bridge")[0], grown("worker")[0]
    most = api_pods() * pods.web_processes * postgresql.CONNECTIONS + bridges + workers * pods.workers
    patched = [str(step["value"]) for step in operations() if str(step["value"]).startswith("max_connections=")]
    assert len(patched) == 1 and most + 10 <= int(patched[0].partition("=")[2])  # init, retention, people


def test_redis_holds_what_all_bridges_may_have_in_flight() -> None:
    (redis,) = named("Deployment", "redis", "scaled/07-redis.yaml")["spec"]["template"]["spec"]["containers"]
    bound = redis["args"][redis["args"].index("--maxmemory") + 1]
    bridges, _ = grown("bridge")
    megabytes = int(bound.removesuffix("mb"))
    assert megabytes * 2**20 >= 2 * bridges * told().in_flight_bytes
    assert megabytes < int(redis["resources"]["limits"]["memory"].removesuffix("Mi"))
    assert redis["args"][redis["args"].index("--maxmemory-policy") + 1] == "noeviction"


def shown() -> list[str]:
    """Every expression of the dashboard."""
    dashboard = json.loads((KUBE / "monitoring" / "dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def alerting() -> list[str]:
    """Every expression of the alerts."""
    rule = named("PrometheusRule", "backend", "monitoring/alerts.yaml")
    return [rule["expr"] for group in rule["spec"]["groups"] for rule in group["rules"]]


SHOWN = {name: name for name in CATALOGUE} | {
    f"{name}_{part}": name
    for name, metric in CATALOGUE.items()
    if isinstance(metric, Histogram)
    for part in ("bucket", "sum", "count")
}


@pytest.mark.parametrize("question", shown() + alerting())
def test_monitoring_asks_for_metrics_and_labels_that_there_are(question: str) -> None:
    asked = re.findall(r"backend_\w+", question)
    assert asked and set(asked) <= set(SHOWN)
    assert not any(isinstance(CATALOGUE.get(name), Histogram) for name in asked), "a histogram has no value of its own"
    labels = {"le"}.union(*(CATALOGUE[SHOWN[name]].labels for name in asked))
    named = [label.strip() for by in re.findall(r"by \(([^)]*)\)", question) for label in by.split(",")]
    assert set(named) | set(re.findall(r"[{,](\w+)=", question)) <= labels


def test_the_dashboard_shows_every_metric() -> None:
    assert {SHOWN[name] for question in shown() for name in re.findall(r"backend_\w+", question)} == set(CATALOGUE)


def test_the_alert_names_reasons_that_a_bridge_gives() -> None:
    (reasons,) = {found for question in alerting() for found in re.findall(r'reason=~"([^"]*)"', question)}
    assert set(reasons.split("|")) <= set(get_args(Reason))


def test_scraping_asks_the_ports_that_show_metrics() -> None:
    service = named("ServiceMonitor", "backend", "monitoring/scraping.yaml")["spec"]
    (deployed,) = (one for one in manifests("Service") if one["metadata"]["name"] == "backend")
    assert service["selector"]["matchLabels"].items() <= deployed["metadata"]["labels"].items()
    (endpoint,) = service["endpoints"]
    assert endpoint["targetPort"] in {port["targetPort"] for port in deployed["spec"]["ports"]}
    (pods,) = (one["spec"] for one in manifests("PodMonitor"))
    (rule,) = pods["selector"]["matchExpressions"]
    showing = {one["name"] for one in ours() if "METRICS_PORT" in literal(one)}
    assert set(rule["values"]) == showing
    assert {port["name"] for one in ours() if one["name"] in showing for port in one["ports"]} == {"metrics"}
    assert {one["port"] for one in pods["podMetricsEndpoints"]} == {"metrics"}
