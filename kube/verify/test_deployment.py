"""The manifest as its users have it, with nothing replaced but the image, within its limits and under its probes."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests

from kube.verify.conftest import Cluster, plain
from kube.verify.containers import Pod
from kube.verify.engine import IMAGE, podman
from kube.verify.load import Load
from tests.clients import events
from tests.waiting import wait_until
from tests.world import World

_WAITING = 100_000
_URL = "http://127.0.0.1:30080"
_MOST_IMAGE_MB = 250
_LOAD_SECONDS = 20
_FRONTEND = "http://frontend.example:3000"
_PATIENCE_SECONDS = 300  # for steps that need 20 s on an idle machine, and for which nothing is promised


@dataclass
class Deployed:
    """Both pods, and the ids of the messages that waited for them."""

    backend: Pod
    consumer: Pod
    world: World
    waiting: set[str]


@pytest.fixture(scope="module", params=["as it is", "as its users had it"])
def deployed(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Deployed]:
    """init has run, 100,000 messages wait in Kafka, then both Deployments begin at once."""
    shape = plain if request.param == "as its users had it" else lambda spec: spec
    specs = {name: shape(found["spec"]) for (_, name), found in cluster.alone.items() if "template" in found["spec"]}
    job = cluster.pod(specs["init-job"], "init-job")
    code, said = job.run()
    assert code == 0, said
    print(f"\n\n04-backend.yaml {request.param}\ninit: done after {job.ended_after:.1f} s, {job.memory()}")
    assert 0 < job.peak_mib < job.limit_mib
    waiting = events(_WAITING)
    cluster.world.produce(list(waiting.values()))
    port = cluster.alone["Service", "backend"]["spec"]["ports"][0]["nodePort"]
    backend = cluster.pod(specs["backend"], "backend", port)
    consumer = cluster.pod(specs["consumer"], "consumer")
    backend.start()
    consumer.start()
    yield Deployed(backend, consumer, cluster.world, set(waiting))
    backend.remove()
    consumer.remove()


def test_the_image_is_small() -> None:
    size = int(podman("image", "inspect", "-f", "{{.Size}}", IMAGE)) / 1e6
    print(f"\nimage: {size:.0f} MB")
    assert size < _MOST_IMAGE_MB


def test_both_are_up_before_their_first_probes(deployed: Deployed) -> None:
    backend, consumer = deployed.backend, deployed.consumer
    bridge_seconds = consumer.seconds_until("partitions.assigned")
    wait_until(lambda: backend.ready, "the backend is ready", _PATIENCE_SECONDS)
    print(f"\nbackend: ready at its first probe, after {backend.ready_after:.0f} s")
    print(f"consumer: the bridge has its partitions after {bridge_seconds:.1f} s, with 0.2 of a core")
    assert bridge_seconds < consumer.container["livenessProbe"]["initialDelaySeconds"]
    assert not backend.failed_probes and not consumer.failed_probes


def test_a_browser_of_another_origin_may_send_a_message_and_reads_it_back(deployed: Deployed) -> None:
    origin = {"Origin": _FRONTEND}
    asked = requests.options(
        f"{_URL}/messages", headers={**origin, "Access-Control-Request-Method": "POST"}, timeout=30
    )
    sent = requests.post(f"{_URL}/messages", json={"type": "greeting"}, headers=origin, timeout=30)
    assert sent.status_code == 202, sent.text
    place = f"{_URL}/messages/{sent.json()['id']}?wait=10"  # 100,000 others may be stored before it
    wait_until(lambda: requests.get(place, timeout=30).status_code == 200, "it is stored", _PATIENCE_SECONDS)
    read = requests.get(place, headers=origin, timeout=30)
    assert {answer.headers["Access-Control-Allow-Origin"] for answer in (asked, sent, read)} <= {"*", _FRONTEND}


def test_what_waited_is_stored_within_the_limits(deployed: Deployed) -> None:
    consumer, world = deployed.consumer, deployed.world
    wait_until(lambda: deployed.waiting <= world.ids(), "all that waited is stored", _PATIENCE_SECONDS)
    print(
        f"\nconsumer: {_WAITING:,} waiting messages stored {consumer.age():.0f} s after its start, with 0.2 of a core"
    )
    print(f"consumer: {consumer.memory()}")
    assert world.sql("SELECT count(*) FROM dead_letter")[0][0] == 0
    _is_well(consumer)


def test_the_backend_keeps_its_limits_under_load(deployed: Deployed) -> None:
    backend, world = deployed.backend, deployed.world
    before = world.ids()
    with Load(lambda: _URL, clients=16) as load:
        wait_until(lambda: load.seconds() > _LOAD_SECONDS, "the load has lasted", 2 * _LOAD_SECONDS)
    print(f"\nbackend: {load.summary()}; {backend.memory()}")
    assert set(load.statuses) <= {202, 503}
    wait_until(lambda: load.accepted <= world.ids(), "all that was accepted is stored", _PATIENCE_SECONDS)
    assert world.ids() - before <= load.accepted | load.unknown
    assert world.sql("SELECT count(*) FROM dead_letter")[0][0] == 0
    _is_well(backend)


def test_all_programs_log_json(deployed: Deployed) -> None:
    for pod in (deployed.backend, deployed.consumer):
        assert [line for line in pod.logs().splitlines() if not line.startswith("{")] == []


def test_the_probe_of_the_consumer_fails_without_its_bridge(deployed: Deployed) -> None:
    consumer = deployed.consumer
    assert consumer.passes("livenessProbe")
    bridge = consumer.execute("pgrep", "-f", "only bridg[e]").split()
    assert len(bridge) == 1
    with consumer.frozen():  # supervisord, which would restart the bridge before the probe runs
        consumer.execute("kill", "-KILL", *bridge)
        wait_until(lambda: not consumer.passes("livenessProbe"), "the probe fails")
    wait_until(lambda: consumer.passes("livenessProbe"), "supervisord has healed it")


def test_sigterm_ends_both_in_time(deployed: Deployed) -> None:
    for pod in (deployed.backend, deployed.consumer):
        code, seconds = pod.stop()
        print(f"\n{pod.name}: ended with exit code {code} after {seconds:.1f} s of {pod.grace_seconds}")
        assert code == 0
        assert seconds < pod.grace_seconds


def _is_well(pod: Pod) -> None:
    assert (pod.failed_probes, pod.restarts, pod.killed_for_memory) == ([], 0, 0)
    assert pod.peak_mib < pod.limit_mib
