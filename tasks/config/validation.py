"""Checks of settings that are valid alone and invalid together."""

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.config import tls


def conflicts(parsed: Mapping[str, Any]) -> Iterator[str]:
    """An error for each pair of settings that contradict each other; it names the settings and contains no value."""
    protocol = parsed["kafka_security_protocol"]
    for name in ("kafka_sasl_username", "kafka_sasl_password"):
        if protocol.startswith("sasl") != (parsed[name] is not None):
            needs = "must be set for" if parsed[name] is None else "is not for"
            yield f"{name.upper()} {needs} KAFKA_SECURITY_PROTOCOL {protocol}"
    files = ("kafka_ssl_ca_file", "kafka_ssl_cert_file", "kafka_ssl_key_file")
    for name in files:
        if parsed[name] is not None and not protocol.endswith("ssl"):
            yield f"{name.upper()} is not for KAFKA_SECURITY_PROTOCOL {protocol}"
    _, cert, key = (parsed[name] for name in files)
    if (cert is None) != (key is None):
        yield "KAFKA_SSL_CERT_FILE and KAFKA_SSL_KEY_FILE go together"
    elif cert is not None:
        try:
            tls.context(None, cert, key)
        except OSError:
            yield "KAFKA_SSL_CERT_FILE and KAFKA_SSL_KEY_FILE must be a certificate and its key as PEM, not encrypted"
    if parsed["kafka_calls_topic"] in parsed["kafka_topics"]:
        yield "KAFKA_CALLS_TOPIC must not be one of KAFKA_TOPICS"
    if parsed["redis_ssl_ca_file"] is not None and (parsed["redis_url"] or "").startswith("redis://"):
        yield "REDIS_SSL_CA_FILE is for a REDIS_URL that begins with rediss://"
