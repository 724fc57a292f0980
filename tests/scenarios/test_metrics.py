"""What is counted is right whichever process is asked, and shows why the bridge holds back."""

import requests

from bootstrap.localstack.ports import free_port
from tasks.config.version import version
from tests.clients import events
from tests.waiting import wait_until
from tests.world import World

Shown = dict[str, float]


def shown(port: int) -> Shown:
    answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10)
    assert answer.status_code == 200, answer.text
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def lag(port: int) -> float:
    return sum(value for name, value in shown(port).items() if name.startswith("backend_lag_records"))


def test_every_process_of_the_api_shows_the_sum_over_all(ready: World) -> None:
    serve = ready.serve(web_processes="2")
    posted = 0

    def both_accepted() -> bool:
        nonlocal posted
        assert ready.post(type="counted").status_code == 202
        posted += 1
        return len({line["pid"] for line in serve.lines("message.accepted")}) == 2

    wait_until(both_accepted, "both processes accept some")  # the kernel chooses which one gets a connection
    refused = requests.post(f"{ready.url}/messages", b"{", headers={"Content-Type": "application/json"}, timeout=10)
    assert refused.status_code == 400
    for _ in range(20):
        seen = shown(ready.port)
        assert seen[f'backend_messages_accepted_total{{topic="{ready.topic}"}}'] == posted
        assert seen[f'backend_publish_seconds_count{{topic="{ready.topic}"}}'] == posted
        assert seen['backend_http_problems_total{problem="not-json"}'] == 1
        assert seen['backend_http_requests_total{method="POST",route="/messages",status="202"}'] == posted
        assert seen[f'backend_build_info{{version="{version()}"}}'] == 2


def test_metrics_are_for_operators(ready: World) -> None:
    ready.serve(api_keys="read:reader-key,operate:operator-key")
    found = [
        requests.get(f"{ready.url}/metrics", headers=headers, timeout=10).status_code
        for headers in ({}, {"X-API-Key": "reader-key"}, {"X-API-Key": "operator-key"})
    ]
    assert found == [401, 403, 200]


def test_the_pods_port_shows_bridge_and_workers_and_why_nothing_is_read(ready: World) -> None:
    ready.produce([*events(3000).values(), b"not JSON"])
    port = free_port()
    ready.consume(metrics_port=str(port), batch_records="100", in_flight="2")
    ready.wait_for(3001)
    label = f'topic="{ready.topic}"'

    def counted(name: str, more: str = "") -> float:
        return shown(port).get(f"backend_{name}{{{more}{label}}}", 0)

    wait_until(lambda: counted("batch_records_sum") == 3001, "the bridge has heard of all batches")
    assert counted("messages_stored_total") == 3000
    assert counted("dead_letters_total", 'reason="not_json",') == 1
    assert counted("records_consumed_total") == 3001
    assert counted("batches_handed_over_total") == counted("end_to_end_seconds_count") >= 31
    wait_until(lambda: lag(port) == 0, "no lag")

    ready.admin("ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    ready.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
    ready.produce(list(events(1000).values()))
    away = 'backend_bridge_backpressure{reason="database_away"}'
    wait_until(lambda: shown(port)[away] == 1, "the gauge says that the database is away")
    ready.produce(list(events(1000).values()))  # which nobody reads
    wait_until(lambda: lag(port) >= 2000, "the lag counts them")
    seen = shown(port)
    assert sum(value for name, value in seen.items() if name.startswith("backend_bridge_backpressure{")) == 1
    ready.admin("ALTER DATABASE {database} ALLOW_CONNECTIONS true")
    ready.wait_for(5001)
    wait_until(lambda: shown(port)[away] == 0, "the bridge reads again")
    assert shown(port)['backend_bridge_backpressure_seconds_total{reason="database_away"}'] > 0


def test_counts_outlive_the_worker_that_made_them(ready: World) -> None:
    port = free_port()
    pod = ready.consume(metrics_port=str(port))
    ready.produce(list(events(500).values()))
    ready.wait_for(500)
    name = f'backend_messages_stored_total{{topic="{ready.topic}"}}'
    wait_until(lambda: shown(port).get(name) == 500, "all are counted")
    for child in pod.child("-m tasks").children():
        child.kill()
    ready.produce(list(events(500).values()))
    ready.wait_for(1000)
    wait_until(lambda: shown(port).get(name) == 1000, "what the killed processes counted is still there")


def test_parts_that_run_apart_show_their_own_and_a_killed_worker_leaves_its_port(ready: World) -> None:
    bridge, worker = str(free_port()), str(free_port())
    ready.consume("--only", "bridge", metrics_port=bridge)
    first = ready.start("consume", "--only", "worker", metrics_port=worker)
    ready.produce(list(events(100).values()))
    ready.wait_for(100)
    label = f'{{topic="{ready.topic}"}}'
    stored, consumed = f"backend_messages_stored_total{label}", f"backend_records_consumed_total{label}"
    wait_until(lambda: shown(int(worker)).get(stored) == 100, "the workers show what they stored")
    assert shown(int(bridge))[consumed] == 100
    assert consumed not in shown(int(worker)) and stored not in shown(int(bridge))
    first.process.kill()
    first.process.wait()
    ready.start("consume", "--only", "worker", metrics_port=worker)
    ready.produce(list(events(50).values()))
    ready.wait_for(150)
    wait_until(lambda: shown(int(worker)).get(stored) == 50, "a new pod counts anew")
