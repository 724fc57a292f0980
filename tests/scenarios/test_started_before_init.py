"""Started before `init` has created topics and tables, the API and the pod wait, and continue by themselves."""

from tests.waiting import wait_until
from tests.world import World


def test_all_go_on_when_init_has_run(world: World) -> None:
    world.serve()
    pod = world.start("consume")
    wait_until(lambda: pod.lines("process.started"), "the pod runs")
    wait_until(lambda: world.post(n=0).status_code == 503, "a message is refused, not lost")
    world.init()
    wait_until(lambda: world.post(n=1).status_code == 202, "the API takes messages")
    world.wait_for(1, 30)
    assert pod.process.poll() is None
