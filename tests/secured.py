"""The local stack behind TLS and passwords, with certificates made here: good ones, and one for each fault."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import redis
import trustme
from cryptography.hazmat.primitives import serialization

from bootstrap.localstack.ports import free_port
from bootstrap.localstack.stack import Stack
from tests.programs import ROOT
from tests.terminator import Terminator
from tests.world import World

USER, PASSWORD = "keeper", "right-horse-battery"
KINDS = ("good", "expired", "misnamed")  # of certificates, all signed by the right CA
_PLAIN = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";'
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


@dataclass(frozen=True)
class Secured:
    """The servers' addresses by kind of certificate, and files for who talks to them."""

    stack: Stack
    kafka: Mapping[str, int]  # those of KINDS require a user, `open` requires none, `mutual` a certificate
    postgresql: Mapping[str, int]
    redis: Mapping[str, int]
    directory: Path

    def file(self, name: str) -> str:
        """`ca.pem`, `other-ca.pem`, or a client's `client.pem`."""
        return str(self.directory / name)

    def kafka_variables(self, kind: str = "good", **changed: str) -> dict[str, str]:
        """The settings for Kafka, except those in `changed`."""
        ways = {
            "open": {"KAFKA_SECURITY_PROTOCOL": "ssl"},
            "mutual": {
                "KAFKA_SECURITY_PROTOCOL": "ssl",
                "KAFKA_SSL_CERT_FILE": self.file("client.pem"),
                "KAFKA_SSL_KEY_FILE": self.file("client.pem"),
            },
        }
        user = {
            "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
            "KAFKA_SASL_USERNAME": USER,
            "KAFKA_SASL_PASSWORD": PASSWORD,
        }
        place = {"KAFKA_BROKERS": f"127.0.0.1:{self.kafka[kind]}", "KAFKA_SSL_CA_FILE": self.file("ca.pem")}
        return {**place, **ways.get(kind, user), **changed}

    def database_url(
        self, world: World, kind: str = "good", password: str = PASSWORD, authority: str = "ca.pem"
    ) -> str:
        """The world's database, as a user with a password."""
        place = f"127.0.0.1:{self.postgresql[kind]}/{world.topic}"
        return f"postgresql://{USER}:{password}@{place}?sslmode=verify-full&sslrootcert={self.file(authority)}"

    def redis_variables(
        self, kind: str = "good", password: str = PASSWORD, authority: str = "ca.pem"
    ) -> dict[str, str]:
        """How Redis is reached; without `authority`, whom the system trusts."""
        url = f"rediss://{USER}:{password}@127.0.0.1:{self.redis[kind]}/0"
        return {"REDIS_URL": url, "REDIS_SSL_CA_FILE": self.file(authority) if authority else ""}

    def world(self, kafka: str = "good", **changed: str) -> World:
        """A world that reaches every service over TLS with a password; Kafka as `kafka_variables` says."""
        world = World(self.stack)
        world.admin(f"ALTER DATABASE {{database}} OWNER TO {USER}")
        world.variables |= self.kafka_variables(kafka, **changed) | self.redis_variables()
        world.variables["DATABASE_URL"] = self.database_url(world)
        return world


@contextlib.contextmanager
def secured(directory: Path) -> Iterator[Secured]:
    """Start it all; takes as long as the stack alone."""
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    other.cert_pem.write_to_path(str(directory / "other-ca.pem"))
    _write(directory / "client.pem", authority.issue_cert("client.example"))
    now = datetime.now(UTC)
    certificates = {
        "good": authority.issue_cert("127.0.0.1"),
        "expired": authority.issue_cert(
            "127.0.0.1", not_before=now - timedelta(days=2), not_after=now - timedelta(days=1)
        ),
        "misnamed": authority.issue_cert("elsewhere.example"),
    }
    for name, certificate in certificates.items():
        _write(directory / f"{name}.pem", certificate)
    kafka = {name: free_port() for name in (*KINDS, "open", "mutual")}
    users = [f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]
    stack = Stack(
        directory,
        {},
        ROOT / ".local" / "kafka-4.4.0",
        kafka_properties=_properties(directory, kafka),
        kafka_users=users,
    )
    with stack, contextlib.ExitStack() as rest:
        _ask_for_passwords(stack)
        fronts = [
            rest.enter_context(Terminator(_port(stack.variables[name]), certificates, name == "DATABASE_URL"))
            for name in ("DATABASE_URL", "REDIS_URL")
        ]
        yield Secured(stack, kafka, fronts[0].ports, fronts[1].ports, directory)


def _write(path: Path, certificate: trustme.LeafCert) -> None:
    """Key and chain as Kafka takes them: PKCS 8, in one file."""
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(pem + b"".join(one.bytes() for one in certificate.cert_chain_pems))


def _properties(directory: Path, ports: Mapping[str, int]) -> str:
    """A listener for each port; {port} and {controller} are filled in by the stack."""
    protocols = {name: "SASL_SSL" if name in KINDS else "SSL" for name in ports}
    named = [f"{name.upper()}://127.0.0.1:{port}" for name, port in ports.items()]
    lines = [
        ",".join(["listeners=PLAINTEXT://127.0.0.1:{port}", "CONTROLLER://127.0.0.1:{controller}", *named]),
        ",".join(["advertised.listeners=PLAINTEXT://127.0.0.1:{port}", *named]),
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
        + ",".join(f"{name.upper()}:{protocol}" for name, protocol in protocols.items()),
    ]
    for name, protocol in protocols.items():
        own = f"listener.name.{name}."
        store = f"{directory}/{name if name in KINDS else 'good'}.pem"
        lines += [f"{own}ssl.keystore.type=PEM", f"{own}ssl.keystore.location={store}"]
        if protocol == "SASL_SSL":
            lines += [
                f"{own}sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512",
                f"{own}plain.sasl.jaas.config={_PLAIN.format(user=USER, password=PASSWORD)}",
                f"{own}scram-sha-512.sasl.jaas.config={_SCRAM}",
            ]
    lines += [
        "listener.name.mutual.ssl.client.auth=required",
        "listener.name.mutual.ssl.truststore.type=PEM",
        f"listener.name.mutual.ssl.truststore.location={directory}/ca.pem",
    ]
    return "\n".join([*lines, ""])


def _ask_for_passwords(stack: Stack) -> None:
    """Give PostgreSQL and Valkey a user with a password."""
    world = World(stack)
    world.sql(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
    rules = stack.directory / "data" / "postgresql" / "pg_hba.conf"
    rules.write_text(f"host all {USER} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    world.sql("SELECT pg_reload_conf()")
    with redis.Redis.from_url(stack.variables["REDIS_URL"]) as server:
        server.acl_setuser(
            USER, enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], channels=["*"], categories=["+@all"]
        )


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1].split("/")[0])
