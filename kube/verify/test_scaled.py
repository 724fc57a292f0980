"""Bridges and workers as Deployments of their own, with a Redis between them: the overlay `scaled`."""

from kube.verify.conftest import Cluster
from tests.clients import events
from tests.waiting import wait_until

_WAITING = 20_000
_PATIENCE_SECONDS = 180  # for what takes 20 s on an idle machine


def test_two_bridges_and_two_workers_share_the_work(cluster: Cluster) -> None:
    world = cluster.world
    world.init()
    before = world.ids()
    made = events(_WAITING)
    world.produce(list(made.values()))
    bridges, workers = (
        [cluster.pod(cluster.scaled["Deployment", name]["spec"], f"{name}-{number}") for number in (1, 2)]
        for name in ("bridge", "worker")
    )
    for pod in (*bridges, *workers):
        pod.start()
    wait_until(lambda: set(made) <= world.ids(), "all is stored", _PATIENCE_SECONDS)
    assert world.ids() - before == set(made)
    for pod in (*bridges, *workers):
        wait_until(pod.started, f"{pod.name} has passed its first probe", _PATIENCE_SECONDS)
        print(f"\n{pod.name}: up after {pod.started_after:.1f} s, {pod.memory()}")
        assert (pod.failed_probes, pod.killed_for_memory) == ([], 0)
    for pod in (*bridges, *workers):
        code, seconds = pod.stop()
        assert code == 0
        assert seconds < pod.grace_seconds
