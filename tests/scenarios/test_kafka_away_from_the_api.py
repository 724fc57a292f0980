"""A 202 is a promise even while Kafka is killed, and every other answer says what it is."""

from concurrent.futures import ThreadPoolExecutor

import requests

from tests.waiting import wait_until
from tests.world import World


def test_what_was_answered_202_is_stored(ready: World) -> None:
    ready.serve(publish_timeout_seconds="5")
    ready.consume()
    answers: list[tuple[int, str]] = []

    def client(number: int) -> None:
        with requests.Session() as session:
            while not done:
                answer = session.post(f"{ready.url}/messages", json={"client": number}, timeout=30)
                body = answer.json()
                answers.append((answer.status_code, body.get("id") or body["type"]))

    done: list[bool] = []
    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, number) for number in range(4)]
        wait_until(lambda: len(answers) > 200, "the load is under way")
        ready.stack.servers["kafka"].kill()
        wait_until(lambda: any(status == 503 for status, _ in answers), "Kafka is missed")
        ready.stack.servers["kafka"].restart()
        before = len(answers)
        wait_until(lambda: any(status == 202 for status, _ in answers[before:]), "messages are accepted again", 60)
        done.append(True)
        for one in clients:
            one.result()
    promised = {said for status, said in answers if status == 202}
    refused = {said for status, said in answers if status != 202}
    assert refused <= {"/problems/unavailable", "/problems/unknown-outcome"}
    wait_until(lambda: promised <= ready.ids(), "all that was promised is stored", 60)
    unknown = sum(said == "/problems/unknown-outcome" for _, said in answers)
    assert len(promised) <= ready.count() <= len(promised) + unknown
