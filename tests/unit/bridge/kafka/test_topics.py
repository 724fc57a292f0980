"""What `init` would do to topics: create, extend, warn, never shrink."""

import pytest

from bridge.kafka.cluster import Topic
from bridge.kafka.topics import plan


@pytest.mark.parametrize(
    ("existing", "actions"),
    [
        ([], ["create"]),
        ([Topic("t", 6, 3)], ["keep"]),
        ([Topic("t", 3, 3)], ["extend"]),
        ([Topic("t", 9, 3)], ["warn"]),
        ([Topic("t", 6, 1)], ["keep", "warn"]),
        ([Topic("t", 3, 1)], ["extend", "warn"]),
        ([Topic("t", 6, 3, min_insync_replicas=2)], ["keep"]),
        ([Topic("t", 6, 3, min_insync_replicas=1)], ["keep", "warn"]),
        ([Topic("other", 1, 1)], ["create"]),
    ],
)
def test_plan(existing: list[Topic], actions: list[str]) -> None:
    steps = list(plan(["t"], 6, 3, existing))
    assert [step.action for step in steps] == actions
    assert all(step.topic == "t" and "topic t" in step.sentence for step in steps)
