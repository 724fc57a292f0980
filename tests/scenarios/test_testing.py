"""What a users' end-to-end test learns about the runs of its messages. `examples` tests how it starts a backend."""

import uuid
from collections.abc import Iterator

import pytest
import requests

from tasks.store import connection
from tasks.testing_backend import Backend, Outcome
from tests.world import World


@pytest.fixture
def running(shop: World) -> Iterator[Backend]:
    shop.serve()
    log = shop.consume().log
    connection.configure(shop.variables["DATABASE_URL"], "test", connections=2)
    yield Backend(shop.url, shop.variables, shop.topic, log)
    connection.database.close()
    connection.database.close_all()


def test_how_runs_ended_is_known_when_they_have(running: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    def ended(wish: str) -> Outcome:
        outcomes = running.outcomes(running.publish({"type": "order.paid", "wish": wish}))
        assert list(outcomes) == ["flaky"]
        return outcomes["flaky"]

    assert ended("nothing") == Outcome("done")
    assert ended("retry") == Outcome("done")
    failed = ended("fail")
    assert (failed.state, failed.attempt, failed.error) == ("failed", 3, "ValueError: as its message says")
    assert 'raise ValueError("as its message says")' in failed.traceback
    assert failed.traceback in capsys.readouterr().out
    assert ended("reject").attempt == 1
    three = running.outcomes(running.produce({"type": "type-1"}, key=b"k", headers=[("a", b"b")]))
    assert three == {name: Outcome("done") for name in ("at_least_once", "exact", "in_batches")}
    assert running.outcomes(running.produce({"type": "nobody's"})) == {}
    accepted = requests.post(f"{running.url}/tasks/double", json={"n": 4}, timeout=30).json()
    assert running.outcomes(uuid.UUID(accepted["id"])) == {"double": Outcome("done", 1)}


def test_what_cannot_end_is_said(running: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match="is a dead letter: not_json"):
        running.outcomes(running.produce(b"{"))
    with pytest.raises(AssertionError, match="POST /messages: 400"):
        running.publish([1])
    with pytest.raises(AssertionError, match=r"after 0\.5 s: slow is waiting, without an error"):
        running.outcomes(running.publish({"type": "slow", "seconds": 60}), seconds=0.5)
    message_id = str(uuid.uuid4()).encode()
    twice = [running.produce({"type": "nobody's"}, headers=[("id", message_id)]) for _ in range(2)]
    assert running.outcomes(twice[0]) == {}
    with pytest.raises(AssertionError, match=r"after 0\.5 s: it is not stored"):
        running.outcomes(twice[1], seconds=0.5)
    assert '"event":' in capsys.readouterr().out  # the end of the log
