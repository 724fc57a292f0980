"""TLS and passwords on real servers: the right ones work, and wrong ones cause a sentence with the reason."""

import subprocess
from collections.abc import Iterator

import pytest
import redis
import requests
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kombu.exceptions import OperationalError

from bridge.kafka.publisher import KafkaPublisher
from tasks import claim_store
from tasks.claim_store import RedisClaimStore
from tasks.seal import of_deployment
from tasks.worker.app import create_app
from tests.programs import Program
from tests.secured import PASSWORD, USER, Secured, secured
from tests.waiting import wait_until
from tests.world import World

OTHER = "other-ca.pem"
WRONG = "wrong-horse-battery"
UNSIGNED = "not signed by a trusted CA"
EXPIRED = "certificate has expired"
MISNAMED = "IP address mismatch, certificate is not valid for '127.0.0.1'"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("secured")) as servers:
        yield servers


@pytest.fixture
def world(servers: Secured) -> Iterator[World]:
    world = servers.world()
    yield world
    world.close()
    world.show_logs()


def shows_a_secret(program: Program) -> bool:
    """Whether the log, or the command line of any process, holds a password."""
    texts = [program.log.read_text(), *(" ".join(process.cmdline()) for process in program.family())]
    return any(word in text for word in (PASSWORD, WRONG) for text in texts)


def test_a_message_goes_all_the_way_over_tls(world: World) -> None:
    done = world.run("init")
    assert done.returncode == 0, done.stderr
    serve, consume = world.serve(), world.consume()
    accepted = world.post(type="greeting", text="hello")
    assert accepted.status_code == 202, accepted.text
    stored = requests.get(f"{world.url}/messages/{accepted.json()['id']}", params={"wait": "10"}, timeout=30)
    assert stored.json()["payload"] == {"type": "greeting", "text": "hello"}
    assert requests.get(f"{world.url}/health/ready", timeout=30).json()["status"] == "ok"
    assert requests.get(f"{world.url}/topics", timeout=30).json()["topics"][0]["topic"] == world.topic
    (user,) = world.sql("SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'backend-worker'")
    assert user == (USER,)
    assert not any(shows_a_secret(program) for program in (serve, consume))


@pytest.mark.parametrize(
    ("listener", "changed"),
    [
        ("good", {"KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}),
        ("good", {"KAFKA_SASL_MECHANISM": "plain"}),
        ("open", {}),
        ("mutual", {}),
    ],
    ids=["scram", "plain", "nobody", "certificate"],
)
def test_every_way_into_kafka(servers: Secured, listener: str, changed: dict[str, str]) -> None:
    world = servers.world(listener, **changed)
    world.init()
    publisher = KafkaPublisher(world.settings())
    assert publisher.unavailable_reason() is None
    assert publisher.send(world.topic, b"key", b"{}", [])().offset == 0
    publisher.close()


@pytest.mark.parametrize(
    ("listener", "changed", "said"),
    [
        ("good", {"KAFKA_SSL_CA_FILE": OTHER}, f"not trusted (KAFKA_SSL_CA_FILE): {UNSIGNED}"),
        ("expired", {}, f"not trusted (KAFKA_SSL_CA_FILE): {EXPIRED}"),
        ("misnamed", {}, f"not trusted (KAFKA_SSL_CA_FILE): {MISNAMED}"),
        ("good", {"KAFKA_SASL_PASSWORD": WRONG}, "refused the user or password (KAFKA_SASL_USERNAME, KAFKA_SASL_PASSW"),
        ("good", {"KAFKA_SASL_PASSWORD": WRONG, "KAFKA_SASL_MECHANISM": "plain"}, "refused the user or password"),
        (
            "good",
            {"KAFKA_SASL_MECHANISM": "scram-sha-256"},
            "does not support KAFKA_SASL_MECHANISM SCRAM-SHA-256, but ",
        ),
        ("mutual", {"KAFKA_SSL_CERT_FILE": "", "KAFKA_SSL_KEY_FILE": ""}, "KAFKA_SSL_CERT_FILE): tlsv13 alert cert"),
        ("open", {"KAFKA_SECURITY_PROTOCOL": "plaintext", "KAFKA_SSL_CA_FILE": ""}, "it uses TLS on this port"),
    ],
    ids=["authority", "expired", "host", "scram", "plain", "mechanism", "certificate", "no TLS"],
)
def test_init_says_at_once_why_kafka_cannot_be_used(
    servers: Secured, listener: str, changed: dict[str, str], said: str
) -> None:
    changed = {name: servers.file(value) if value == OTHER else value for name, value in changed.items()}
    world = servers.world(listener, **changed)
    ended(world.run("init"), "Kafka", said)


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        ("good", {"authority": OTHER}, f"not trusted (sslrootcert in --database-url / DATABASE_URL): {UNSIGNED}"),
        ("expired", {}, f"not trusted (sslrootcert in --database-url / DATABASE_URL): {EXPIRED}"),
        ("misnamed", {}, 'for "elsewhere.example" does not match host name "127.0.0.1"'),
        ("good", {"password": WRONG}, "PostgreSQL refused the user or password of --database-url / DATABASE_URL"),
    ],
    ids=["authority", "expired", "host", "password"],
)
def test_init_says_at_once_why_postgresql_cannot_be_used(
    servers: Secured, world: World, kind: str, changed: dict[str, str], said: str
) -> None:
    ended(world.run("init", database_url=servers.database_url(world, kind, **changed)), "PostgreSQL", said)


def ended(done: "subprocess.CompletedProcess[str]", service: str, said: str) -> None:
    """`init` ended with the exit code of a rejection, without waiting, and showed no secret."""
    assert done.returncode == 4, done.stderr
    assert service in done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "init.waiting" not in done.stdout
    assert "traceback" not in done.stdout
    assert not any(word in done.stdout + done.stderr for word in (PASSWORD, WRONG))


def test_without_tls_postgresql_says_what_is_wrong(servers: Secured, world: World) -> None:
    plain = world.stack.variables["DATABASE_URL"]
    ended(
        world.run("init", database_url=f"{plain}?sslmode=require"),
        "PostgreSQL",
        "does not support TLS, which sslmode in",
    )
    missing = world.run("init", database_url=servers.database_url(world, authority="nowhere.pem"))
    assert (missing.returncode, "nowhere.pem" in missing.stderr) == (2, True)


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        ("good", {"authority": OTHER}, f"not trusted (REDIS_SSL_CA_FILE): {UNSIGNED}"),
        ("good", {"authority": ""}, f"not trusted (REDIS_SSL_CA_FILE): {UNSIGNED}"),
        ("expired", {}, f"not trusted (REDIS_SSL_CA_FILE): {EXPIRED}"),
        ("misnamed", {}, f"not trusted (REDIS_SSL_CA_FILE): {MISNAMED}"),
        ("good", {"password": WRONG}, "Redis refused the user or password of --redis-url / REDIS_URL"),
    ],
    ids=["authority", "system", "expired", "host", "password"],
)
def test_redis_is_refused_by_what_keeps_records_and_by_celery(
    servers: Secured, world: World, kind: str, changed: dict[str, str], said: str
) -> None:
    settings = world.settings(**servers.redis_variables(kind, **changed))
    assert settings.redis_url is not None
    with pytest.raises(redis.RedisError) as by_us:
        RedisClaimStore(settings.redis_url, of_deployment(settings)).send_heartbeat()
    with create_app(settings).connection_for_write() as connection, pytest.raises(OperationalError) as by_celery:
        connection.ensure_connection(max_retries=1, interval_start=0)
    for caught in (by_us, by_celery):
        assert said in claim_store.explain(caught.value)
        assert WRONG not in claim_store.explain(caught.value)


def test_who_runs_for_ever_says_it_waits_and_goes_on(servers: Secured, world: World) -> None:
    world.init()
    new_user = {"KAFKA_SASL_USERNAME": world.topic, "KAFKA_SASL_PASSWORD": WRONG}
    expired = servers.database_url(world, "expired")
    serve = world.serve(**new_user, database_url=expired, web_processes="1")
    bridge = world.start("consume", "--only", "bridge", **new_user)
    worker = world.start("consume", "--only", "worker", **servers.redis_variables("expired"))
    told = requests.get(f"{world.url}/health/ready", timeout=30)
    reasons = [service["reason"] for service in told.json()["services"].values()]
    assert (told.status_code, told.json()["status"]) == (503, "unavailable")
    assert "Kafka at 127.0.0.1" in reasons[0] and "refused the user or password" in reasons[0]
    assert EXPIRED in reasons[1]
    refused = world.post(text="hello")
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/unavailable")

    def said(program: Program, service: str, reason: str) -> bool:
        lines = program.lines("service.unavailable")
        return any(line["service"] == service and reason in line["reason"] for line in lines)

    wait_until(lambda: said(bridge, "kafka", "refused the user or password"), "the bridge says why")
    wait_until(lambda: said(worker, "redis", EXPIRED), "a worker says why")
    admin = AdminClient({"bootstrap.servers": servers.stack.variables["KAFKA_BROKERS"], "log_level": 0})
    credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    change = UserScramCredentialUpsertion(world.topic, credential, WRONG.encode())
    admin.alter_user_scram_credentials([change])[world.topic].result(30)
    wait_until(lambda: bridge.lines("partitions.assigned"), "the bridge is let in")
    wait_until(lambda: world.post(text="hello").status_code == 202, "the API is let in")
    assert not any(shows_a_secret(program) for program in (serve, bridge, worker))
