"""The one reader of flags and environment: every setting with its flag, variable, default and meaning.

A flag wins over its variable, a variable over the default. All faults are reported at once.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal

from tasks import parsing, tls
from tasks.contradictions import contradictions
from tasks.errors import ConfigurationError

COMMANDS = ("init", "serve", "consume", "local", "dead-letters", "retention")
_WITH_KAFKA = ("init", "serve", "consume", "local", "dead-letters")
_PROCESSING = ("init", "serve", "consume", "local")
_PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
_MECHANISMS = ("plain", "scram-sha-256", "scram-sha-512")


def _setting(default: str, parse: Callable[[str], Any], meaning: str, *commands: str, secret: bool = False) -> Any:
    """Declare one setting. `commands` are those that take it as a flag; none: variable only."""
    metadata = {"default": default, "parse": parse, "meaning": meaning, "commands": commands, "secret": secret}
    return field(metadata=metadata, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a process is told from outside; validated whole, read once, passed down."""

    kafka_brokers: tuple[str, ...] = _setting(
        "localhost:9092", parsing.names, "Kafka bootstrap servers, host:port, comma separated", *_WITH_KAFKA
    )
    kafka_topics: tuple[str, ...] = _setting(
        "messages", parsing.names, "topics, comma separated; the first is the API's default", *_PROCESSING
    )
    kafka_partitions: int = _setting("6", parsing.positive, "partitions of each topic", "init", "local")
    kafka_replication_factor: int = _setting("1", parsing.positive, "replicas of each partition", "init")
    kafka_security_protocol: str = _setting(
        "plaintext", parsing.one_of(*_PROTOCOLS), f"how Kafka is talked to: {', '.join(_PROTOCOLS)}", *_WITH_KAFKA
    )
    kafka_ssl_ca_file: str | None = _setting(
        "", tls.ca_file, "who signs Kafka's certificates, as PEM; none: whom the system trusts", *_WITH_KAFKA
    )
    kafka_ssl_cert_file: str | None = _setting("", tls.pem_file, "our certificate for Kafka, as PEM", *_WITH_KAFKA)
    kafka_ssl_key_file: str | None = _setting("", tls.pem_file, "the key of that certificate, as PEM", *_WITH_KAFKA)
    kafka_sasl_mechanism: str = _setting(
        "scram-sha-512",
        parsing.one_of(*_MECHANISMS),
        f"how we prove who we are: {', '.join(_MECHANISMS)}",
        *_WITH_KAFKA,
    )
    kafka_sasl_username: str | None = _setting("", parsing.optional_name, "our user in Kafka", *_WITH_KAFKA)
    kafka_sasl_password: str | None = _setting("", parsing.optional_name, "the password of that user", secret=True)
    kafka_group_id: str = _setting("backend", parsing.name, "consumer group", "serve", "consume")
    database_url: str = _setting(
        "postgresql://localhost/backend",
        parsing.url("postgresql", "postgres"),
        "PostgreSQL to store messages in",
        *COMMANDS,
        secret=True,
    )
    redis_url: str | None = _setting(
        "",
        parsing.optional_url("redis", "rediss", "unix"),
        "Redis that carries tasks; none: consume starts its own",
        "consume",
        secret=True,
    )
    redis_ssl_ca_file: str | None = _setting(
        "", tls.ca_file, "who signs the certificate of rediss://, as PEM; none: whom the system trusts", "consume"
    )
    wait_seconds: int = _setting("60", parsing.positive, "how long init waits for each service", "init")

    address: str = _setting(
        "0.0.0.0", parsing.name, "address to listen on; default of local: 127.0.0.1", "serve", "consume", "local"
    )
    port: int = _setting("8080", parsing.port, "port to listen on", "serve", "local")
    cors_origins: tuple[str, ...] = _setting(
        "", parsing.origins, "origins that browsers may call from, scheme://host[:port], comma separated, or *", "serve"
    )
    web_processes: int = _setting("2", parsing.positive, "gunicorn processes, best as many as cores", "serve")
    web_threads: int = _setting(
        "32", parsing.positive, "messages that each gunicorn process accepts at once, and as many reads", "serve"
    )
    max_body_bytes: int = _setting("1000000", parsing.positive, "largest message", "serve")
    max_batch_bytes: int = _setting("10000000", parsing.positive, "largest body of a batch", "serve")
    max_batch_items: int = _setting("10000", parsing.positive, "most items in a batch", "serve")
    payload_index: Literal["on", "off"] = _setting(
        "on", parsing.one_of("on", "off"), "an index for ?contains, which storing pays for: on or off", "init"
    )
    stream_listeners: int = _setting(
        "100", parsing.positive, "listeners of GET /messages/stream that each gunicorn process serves at once", "serve"
    )
    publish_queue_bytes: int = _setting(
        "32000000",
        parsing.positive,
        "most bytes of a process that wait for Kafka; beyond, messages are refused",
        "serve",
    )
    api_keys: tuple[parsing.ApiKey, ...] = _setting(
        "", parsing.api_keys, "who may use the API, as read+write:KEY,operate:KEY; none: everybody", secret=True
    )
    publish_timeout_seconds: int = _setting(
        "5", parsing.positive, "longest wait for Kafka to acknowledge, seconds", "serve", "dead-letters"
    )

    workers: int = _setting(
        "auto", parsing.workers, "Celery worker processes; auto: one for each core it may use", "consume"
    )
    batch_records: int = _setting("2000", parsing.positive, "most records in a batch", "consume")
    batch_bytes: int = _setting(
        "2000000", parsing.positive, "most bytes in a batch, unless one record is larger", "consume"
    )
    linger_ms: int = _setting("50", parsing.positive, "longest wait for a batch to fill, milliseconds", "consume")
    in_flight: int = _setting("8", parsing.positive, "most batches handed over and not yet stored", "consume")
    in_flight_bytes: int = _setting(
        "32000000", parsing.positive, "most bytes handed over and not yet stored", "consume"
    )
    ordering: Literal["none", "partition", "key"] = _setting(
        "none",
        parsing.one_of("none", "partition", "key"),
        "what is stored in order of offsets: none, partition or key",
        "consume",
    )
    dead_letter_limit_percent: int = _setting(
        "50",
        parsing.percent,
        "a partition stops when more of its recent records are dead letters; 100: never",
        "consume",
    )
    watchdog_seconds: int = _setting(
        "120",
        parsing.patience,
        "a bridge, or workers, that do nothing for so long, and know no reason, end themselves",
        "consume",
    )
    batch_deadline_seconds: int = _setting(
        "60", parsing.positive, "a batch that a worker has for so long is taken from it", "consume"
    )
    metrics_port: int = _setting(
        "0", parsing.port_or_none, "port on which a consumer pod shows its metrics; 0: none", "consume"
    )

    retention_days: int = _setting("0", parsing.days, "messages stored longer ago are deleted; 0: none", "retention")
    dead_letter_retention_days: int = _setting(
        "0", parsing.days, "dead letters redriven or discarded longer ago are deleted; 0: none", "retention"
    )

    local_dir: str = _setting(".local", parsing.name, "where the local stack keeps jars, data and logs", "local")
    local_started: float = _setting(
        "0", float, "when the user typed the command, seconds since 1970; 0: when local started"
    )

    prometheus_multiproc_dir: str | None = _setting(
        "",
        parsing.optional_directory,
        "where the processes of a pod share what they count; none: a directory that is made for it",
    )
    otel_exporter_otlp_endpoint: str | None = _setting(
        "",
        parsing.optional_url("http", "https"),
        "OpenTelemetry collector (OTLP over HTTP) that traces go to; none: no traces",
    )

    app_env: str = _setting(
        "development", parsing.one_of("development", "test", "production"), "shown in every log line"
    )
    log_level: str = _setting("info", parsing.one_of("debug", "info", "warning", "error"), "least severe line logged")
    log_format: str = _setting("text", parsing.one_of("text", "json"), "how log lines are written")


def _raw(values: Mapping[str, str], setting: Field[Any]) -> str:
    return values.get(setting.name.upper(), setting.metadata["default"])


def load(flags: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read settings from `flags` (by setting name), then `environment` (the process's own), then defaults.

    Raises ConfigurationError naming every bad value; a secret's value is never repeated.
    """
    values = child_environment(flags or {}, environment)
    parsed: dict[str, Any] = {}
    faults: list[str] = []
    for setting in fields(Settings):
        text = _raw(values, setting)
        try:
            parsed[setting.name] = setting.metadata["parse"](text)
        except ValueError as error:
            shown = "" if setting.metadata["secret"] else f" ({text!r})"
            faults.append(f"{flag(setting.name)} / {setting.name.upper()}{shown}: {_because(error)}")
    faults = faults or list(contradictions(parsed))
    if faults:
        raise ConfigurationError("; ".join(faults))
    if parsed["redis_url"] is not None:
        parsed["redis_url"] = tls.redis_url(parsed["redis_url"], parsed["redis_ssl_ca_file"])
    return Settings(**parsed)


def _because(error: ValueError) -> str:
    text = str(error)
    return "must be a whole number" if text.startswith("invalid literal") else text


def child_environment(flags: Mapping[str, str], environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child process: ours, with the flags we were given as variables.

    Children get settings this way and not as arguments, so that no secret shows in `ps`.
    """
    own = os.environ if environment is None else environment
    return {**own, **{name.upper(): value for name, value in flags.items()}}


def flag(name: str) -> str:
    """The command-line flag of a setting: kafka_topics -> --kafka-topics."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class Flag:
    """One row of the settings table, for `--help` and the README."""

    name: str
    default: str
    meaning: str
    commands: tuple[str, ...]
    secret: bool


def table() -> Iterator[Flag]:
    """Every setting in order of declaration."""
    for setting in fields(Settings):
        told = {name: setting.metadata[name] for name in ("default", "meaning", "commands", "secret")}
        yield Flag(setting.name, **told)
