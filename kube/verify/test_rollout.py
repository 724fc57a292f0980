"""A rollout under load: the old pods get SIGTERM while the new ones serve, and no client and no message notices."""

import itertools

from kube.verify.conftest import Cluster
from kube.verify.containers import Pod
from kube.verify.load import Load
from tests.waiting import wait_until

_PATIENCE_SECONDS = 180  # for what takes 20 s on an idle machine
_PROPAGATION_SECONDS = 2.0  # until all nodes have heard that a pod leaves; some may send it requests until then


def test_a_rollout_refuses_nobody_and_stores_everything_once(cluster: Cluster) -> None:
    world = cluster.world
    world.init()
    before = world.ids()
    backend, consumer = (cluster.alone["Deployment", name]["spec"] for name in ("backend", "consumer"))
    backends, old_consumer = [cluster.pod(backend, "backend-old")], cluster.pod(consumer, "consumer-old")
    backends[0].start()
    old_consumer.start()
    turns = itertools.count()

    def where() -> str:
        pods = [pod for pod in backends if pod.serves(_PROPAGATION_SECONDS)]
        return f"http://{pods[next(turns) % len(pods)].address}:8080"

    wait_until(lambda: backends[0].ready, "the old backend is ready", _PATIENCE_SECONDS)
    with Load(where, clients=8) as load:
        wait_until(lambda: len(load.accepted) > 100, "requests are answered", _PATIENCE_SECONDS)
        new = cluster.pod(backend, "backend-new")
        new.start()
        wait_until(lambda: new.ready, "the new backend is ready", _PATIENCE_SECONDS)
        backends.append(new)
        _replace(backends[0])
        new_consumer = cluster.pod(consumer, "consumer-new")
        new_consumer.start()
        _replace(old_consumer)
        so_far = len(load.accepted)
        wait_until(lambda: len(load.accepted) > so_far + 100, "the new ones go on", _PATIENCE_SECONDS)
    print(f"\nrollout: {load.summary()}")
    assert set(load.statuses) <= {202, 503}
    wait_until(lambda: load.accepted <= world.ids(), "all that was accepted is stored", _PATIENCE_SECONDS)
    assert world.ids() - before <= load.accepted | load.unknown
    assert world.sql("SELECT count(*) FROM dead_letter")[0][0] == 0
    new.remove()
    new_consumer.remove()


def _replace(old: Pod) -> None:
    code, seconds = old.stop()
    print(f"\n{old.name}: ended with exit code {code} after {seconds:.1f} s of {old.grace_seconds}")
    assert code == 0
