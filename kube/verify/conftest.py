"""The servers beside the containers, and pods of our manifests with nothing replaced but the image."""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bootstrap.localstack.stack import Stack
from kube.verify import engine
from kube.verify.containers import Pod
from tests.programs import ROOT
from tests.world import World

_PORTS = {"kafka": 9092, "postgresql": 5432, "valkey": 6379}
_HOSTS = ("kafka", "postgresql", "redis")
_KUBE = ROOT / "kube"
_KUBECTL = ROOT / ".local" / "verify" / "venv" / "bin" / "kubectl"


class Cluster:
    """The pods of our manifests on this machine; `world` reaches the same servers from outside."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pods: list[Pod] = []
        self.alone = _objects((_KUBE / "04-backend.yaml").read_text())
        kustomize = [str(_KUBECTL), "kustomize", str(_KUBE / "scaled")]
        self.scaled = _objects(subprocess.run(kustomize, capture_output=True, text=True, check=True).stdout)

    def pod(self, spec: Mapping[str, Any], name: str, node_port: int | None = None) -> Pod:
        """A pod of a workload's `spec`, not yet started."""
        given = {**self.scaled["ConfigMap", "backend"]["data"], **self.scaled["Secret", "backend"]["stringData"]}
        pod = Pod(name, spec["template"]["spec"], _HOSTS, given, node_port)
        self.pods.append(pod)
        return pod


def _objects(text: str) -> dict[tuple[str, str], Mapping[str, Any]]:
    documents = filter(None, yaml.safe_load_all(text))
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def plain(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """A workload's `spec` without everything that the users' own manifest lacks."""
    pod = spec["template"]["spec"]
    kept = {"args", "env", "image", "livenessProbe", "ports", "readinessProbe", "resources"}
    container = {name: value for name, value in pod["containers"][0].items() if name in kept}
    for probe in ("livenessProbe", "readinessProbe"):
        if probe in container:
            container[probe] = {name: value for name, value in container[probe].items() if name != "timeoutSeconds"}
    container["env"] = [one for one in container["env"] if one["name"] in ("APP_ENV", "LOG_LEVEL", "LOG_FORMAT")]
    return {"template": {"spec": {"containers": [container]}}}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Kafka, PostgreSQL and Valkey under the names of the manifest, reached from the containers' network."""
    directory: Path = tmp_path_factory.mktemp("stack")
    jars = ROOT / ".local" / "kafka-4.4.0"
    with engine.network() as address, Stack(directory, {}, jars, address, _PORTS) as stack:
        world = World(stack)
        world.topic = "messages"
        own = {"KAFKA_TOPICS": world.topic, "KAFKA_GROUP_ID": "backend"}
        world.variables.update(own, DATABASE_URL=stack.variables["DATABASE_URL"])
        cluster = Cluster(world)
        yield cluster
        for pod in cluster.pods:
            pod.remove()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """The end of each pod's log goes into the report of a test that failed."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(cluster, Cluster):
        for pod in cluster.pods:
            lines = [line[:300] for line in pod.logs().splitlines()[-15:]]
            report.sections.append((f"{pod.name} {pod.failed_probes}", "\n".join(lines)))
    return report
