"""Events posted by eight clients at once are all found by GET, each exactly once."""

from concurrent.futures import ThreadPoolExecutor

import requests

from tests.world import World

_CLIENTS = 8
_EACH = 150


def test_what_eight_clients_post_is_found_exactly_once(ready: World) -> None:
    ready.serve()
    ready.consume()

    def client(number: int) -> list[str]:
        with requests.Session() as session:
            answers = [
                session.post(
                    f"{ready.url}/messages", json={"type": f"type-{n % 4}", "client": number, "n": n}, timeout=30
                )
                for n in range(_EACH)
            ]
        assert {answer.status_code for answer in answers} == {202}
        return [answer.json()["id"] for answer in answers]

    with ThreadPoolExecutor(_CLIENTS) as pool:
        posted = [message_id for ids in pool.map(client, range(_CLIENTS)) for message_id in ids]
    ready.wait_for(_CLIENTS * _EACH)
    found: list[str] = []
    cursor = ""
    while cursor is not None:
        page = requests.get(f"{ready.url}/messages?limit=500{cursor and '&cursor='}{cursor}", timeout=30).json()
        found += [message["id"] for message in page["messages"]]
        cursor = page["next"]
    assert sorted(found) == sorted(posted)
