"""The servers beside the containers, and the pods of `04-backend.yaml` with nothing replaced but the image."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bootstrap.stack import Stack
from kube.verify import containers
from kube.verify.containers import Pod
from tests.world import ROOT, World

_PORTS = {"kafka": 9092, "postgresql": 5432, "valkey": 6379}
MANIFEST = ROOT / "kube" / "04-backend.yaml"


class Cluster:
    """The manifest's pods on this machine; `world` reaches the same servers from outside."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pods: list[Pod] = []
        self._documents = [d for d in yaml.safe_load_all(MANIFEST.read_text()) if d]

    def one(self, kind: str, name: str) -> Mapping[str, Any]:
        """The manifest's object."""
        return next(d for d in self._documents if (d["kind"], d["metadata"]["name"]) == (kind, name))

    def pod(self, kind: str, name: str, suffix: str = "", node_port: int | None = None, plain: bool = False) -> Pod:
        """A pod of this workload, not yet started; `plain`: with nothing that the users' own manifest has not."""
        spec = self.one(kind, name)["spec"]["template"]["spec"]
        pod = Pod(f"{name}{suffix}", _plain(spec) if plain else spec, list(_PORTS), node_port)
        self.pods.append(pod)
        return pod


def _plain(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    kept = {"args", "env", "image", "livenessProbe", "ports", "readinessProbe", "resources"}
    container = {name: value for name, value in spec["containers"][0].items() if name in kept}
    for probe in ("livenessProbe", "readinessProbe"):
        if probe in container:
            container[probe] = {name: value for name, value in container[probe].items() if name != "timeoutSeconds"}
    container["env"] = [one for one in container["env"] if one["name"] in ("APP_ENV", "LOG_LEVEL", "LOG_FORMAT")]
    return {"containers": [container]}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Kafka, PostgreSQL and Valkey under the names of the manifest, reached from the containers' network."""
    directory: Path = tmp_path_factory.mktemp("stack")
    jars = ROOT / ".local" / "kafka-4.4.0"
    with containers.network() as address, Stack(directory, {}, jars, address, _PORTS) as stack:
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
