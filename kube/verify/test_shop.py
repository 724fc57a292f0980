"""The image as the base of another one: the shop of examples/, whose tasks run in its own pods."""

import copy
from collections.abc import Mapping
from typing import Any

import orjson

from kube.verify.conftest import Cluster
from tests.waiting import wait_until

_IMAGE = "shop:verify"
_PATIENCE_SECONDS = 180  # for what takes 20 s on an idle machine


def _of_the_shop(cluster: Cluster, kind: str, name: str, **changed: Any) -> Mapping[str, Any]:
    """The spec of a workload of ours, with the shop's image."""
    spec = copy.deepcopy(cluster.alone[kind, name]["spec"])
    spec["template"]["spec"]["containers"][0] |= {"image": _IMAGE, **changed}
    return dict(spec)


def test_the_tasks_of_an_image_that_builds_on_ours_run(cluster: Cluster) -> None:
    world = cluster.world
    code, said = cluster.pod(_of_the_shop(cluster, "Job", "init-job"), "shop-init").run()
    assert code == 0 and "task shop.tasks.book: created" in said, said
    database = [{"name": "DATABASE_URL", "value": world.variables["DATABASE_URL"]}]
    own = _of_the_shop(cluster, "Job", "init-job", command=["python", "-m", "shop"], args=[], env=database)
    code, said = cluster.pod(own, "shop-tables").run()
    assert code == 0, said

    consumer = cluster.pod(_of_the_shop(cluster, "Deployment", "consumer"), "shop-consumer")
    consumer.start()
    orders = [
        {"type": "order.paid", "order": number, "customer": "ada@example.com", "amount": number} for number in range(9)
    ]
    world.produce([orjson.dumps(order) for order in orders] + [b'{"type": "page.viewed", "page": "/"}'] * 1000)
    booked = "SELECT count(*), sum(amount) FROM shop_booking"
    wait_until(lambda: world.sql(booked) == [(8, 36)], "all orders with an amount are booked", _PATIENCE_SECONDS)
    counted = "SELECT page, views FROM shop_page_views"
    wait_until(lambda: world.sql(counted) == [("/", 1000)], "all views are counted", _PATIENCE_SECONDS)
    wait_until(lambda: world.obligations() == 0, "all obligations have ended", _PATIENCE_SECONDS)
    [(task, error)] = world.sql("SELECT task, error FROM run")
    assert (task, error) == ("shop.tasks.book", "Reject: order 0 has the amount 0")
    print(f"\nshop: 9 orders and 1,000 views {consumer.age():.0f} s after the start; {consumer.memory()}")
    assert (consumer.failed_probes, consumer.restarts, consumer.killed_for_memory) == ([], 0, 0)
    code, seconds = consumer.stop()
    assert code == 0
    assert seconds < consumer.grace_seconds
