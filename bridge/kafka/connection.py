"""How librdkafka connects to the brokers, and what its errors mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from bridge.kafka.preflight import check
from tasks.config.settings import Settings
from tasks.errors import AccessDenied, BackendError, Unavailable

SETTING = "--kafka-brokers / KAFKA_BROKERS"
# How often a consumer asks which broker coordinates its group; after a failover of brokers it may depend on that.
COORDINATOR_MS = 5_000
_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


def configuration(settings: Settings) -> dict[str, Any]:
    """The addresses of the brokers, and how to connect to them, as librdkafka names them."""
    options = {
        "client.id": "backend",
        "bootstrap.servers": ",".join(settings.kafka_brokers),
        "security.protocol": settings.kafka_security_protocol,
        "ssl.ca.location": settings.kafka_ssl_ca_file,
        "ssl.certificate.location": settings.kafka_ssl_cert_file,
        "ssl.key.location": settings.kafka_ssl_key_file,
    }
    if settings.kafka_security_protocol.startswith("sasl"):
        options["sasl.mechanisms"] = settings.kafka_sasl_mechanism.upper()
        options["sasl.username"] = settings.kafka_sasl_username
        options["sasl.password"] = settings.kafka_sasl_password
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def translated(settings: Settings) -> Iterator[None]:
    """Raises AccessDenied or Unavailable in place of librdkafka's errors."""
    try:
        yield
    except KafkaException as error:
        raise explained(settings, error.args[0]) from error
    except TimeoutError as error:
        raise explained(settings, "no response in time") from error


def explained(settings: Settings, error: "KafkaError | str") -> BackendError:
    """What librdkafka's error means. It does not say why it cannot connect, so a broker is asked (`preflight`)."""
    if isinstance(error, KafkaError):
        if error.code() in _DENIED:
            return AccessDenied(f"Kafka denies access to topics, groups or the cluster: {error.str()}")
        error = error.str()
    try:
        check(settings)
    except AccessDenied as denied:
        return denied
    return Unavailable(f"Kafka does not respond at {', '.join(settings.kafka_brokers)} ({SETTING}): {error}")
