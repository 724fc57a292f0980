"""A message posted over HTTP is stored, read back, and can be followed through every process's log."""

from tests.waiting import wait_until
from tests.world import World


def test_a_posted_message_is_stored_and_its_life_is_in_the_logs(ready: World) -> None:
    serve, consume = ready.serve(), ready.consume()
    answer = ready.post(type="order.created", key="42", total=1.5, headers={"trace": "abc"})
    assert answer.status_code == 202
    accepted = answer.json()
    ready.wait_for(1)
    stored = ready.get(accepted["id"])
    assert stored["payload"] == {"type": "order.created", "key": "42", "total": 1.5, "headers": {"trace": "abc"}}
    assert (stored["type"], stored["key"], stored["headers"]["trace"]) == ("order.created", "42", "abc")
    assert {name: stored[name] for name in ("topic", "partition", "offset")} == {
        name: accepted[name] for name in ("topic", "partition", "offset")
    }

    said = [line for line in serve.lines("message.accepted") if line["id"] == accepted["id"]]
    assert len(said) == 1
    worker = wait_until(
        lambda: [x for x in consume.lines("batch.stored") if accepted["id"] in x["ids"]], "it is logged"
    )
    bridge = [line for line in consume.lines("batch.handed_over") if line["batch"] == worker[0]["batch"]]
    assert bridge[0]["first_offset"] <= said[0]["offset"] <= bridge[0]["last_offset"]
    assert (bridge[0]["topic"], bridge[0]["partition"]) == (said[0]["topic"], said[0]["partition"])


def test_an_id_sent_twice_is_stored_once(ready: World) -> None:
    ready.serve()
    ready.consume()
    message_id = "0b6f3f5e-2f7c-4d59-8a37-1f1f6a1f8c11"
    answers = [ready.post(id=message_id, n=1) for _ in range(3)]
    assert [answer.json()["id"] for answer in answers] == [message_id] * 3
    ready.post(n=2)
    ready.wait_for(2)
