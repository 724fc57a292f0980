"""The settings: the only reader of flags and environment variables, with default and meaning of each.

A flag wins over its variable, and a variable over the default. All errors are reported at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from tasks.config import parsers, tls
from tasks.config.environment import child_environment, parsed
from tasks.config.setting import COMMANDS, PROCESSING, WITH_KAFKA, setting

_PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
_MECHANISMS = ("plain", "scram-sha-256", "scram-sha-512")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of a process: read once, validated as a whole, passed down."""

    kafka_brokers: tuple[str, ...] = setting(
        "localhost:9092", parsers.names, "Kafka bootstrap servers, comma-separated host:port", *WITH_KAFKA
    )
    kafka_topics: tuple[str, ...] = setting(
        "messages", parsers.names, "topics, comma-separated; the first is the default of the API", *PROCESSING
    )
    kafka_calls_topic: str = setting(
        "task-calls", parsers.name, "topic of calls of your tasks, which exists if TASKS is set", *PROCESSING
    )
    kafka_partitions: int = setting("6", parsers.positive, "number of partitions of each topic", "init", "local")
    kafka_replication_factor: int = setting("1", parsers.positive, "replication factor of each topic", "init")
    kafka_security_protocol: str = setting(
        "plaintext", parsers.one_of(*_PROTOCOLS), f"security protocol for Kafka: {', '.join(_PROTOCOLS)}", *WITH_KAFKA
    )
    kafka_ssl_ca_file: str | None = setting(
        "", tls.ca_file, "CA file (PEM) for Kafka; if not set, the system's trust store", *WITH_KAFKA
    )
    kafka_ssl_cert_file: str | None = setting("", tls.pem_file, "client certificate for Kafka (PEM)", *WITH_KAFKA)
    kafka_ssl_key_file: str | None = setting(
        "", tls.pem_file, "private key of the client certificate (PEM)", *WITH_KAFKA
    )
    kafka_sasl_mechanism: str = setting(
        "scram-sha-512", parsers.one_of(*_MECHANISMS), f"SASL mechanism: {', '.join(_MECHANISMS)}", *WITH_KAFKA
    )
    kafka_sasl_username: str | None = setting("", parsers.optional_name, "SASL user name", *WITH_KAFKA)
    kafka_sasl_password: str | None = setting("", parsers.optional_name, "SASL password", secret=True)
    kafka_group_id: str = setting("backend", parsers.name, "consumer group id", "serve", "consume")
    kafka_client: Literal["confluent", "kafka-python"] = setting(
        "confluent",
        parsers.one_of("confluent", "kafka-python"),
        "Kafka client that the bridge reads with: confluent or kafka-python",
        "consume",
    )
    database_url: str = setting(
        "postgresql://localhost/backend",
        parsers.url("postgresql", "postgres"),
        "URL of the PostgreSQL database",
        *COMMANDS,
        secret=True,
    )
    redis_url: str | None = setting(
        "",
        parsers.optional_url("redis", "rediss", "unix"),
        "URL of the Redis that carries tasks; if not set, consume starts its own Redis",
        "consume",
        secret=True,
    )
    redis_ssl_ca_file: str | None = setting(
        "", tls.ca_file, "CA file (PEM) for a rediss:// URL; if not set, the system's trust store", "consume"
    )
    seal_key: str | None = setting(
        "",
        parsers.optional_name,
        "secret of bridges and workers, which seals what they exchange through Redis; if not set, DATABASE_URL",
        secret=True,
    )
    wait_seconds: int = setting(
        "60", parsers.positive, "longest time that init waits for each service, seconds", "init"
    )

    address: str = setting(
        "0.0.0.0", parsers.name, "address to listen on; the default of local is 127.0.0.1", "serve", "consume", "local"
    )
    port: int = setting("8080", parsers.port, "port to listen on", "serve", "local")
    cors_origins: tuple[str, ...] = setting(
        "", parsers.origins, "origins allowed for browsers (CORS), comma-separated scheme://host[:port], or *", "serve"
    )
    web_processes: int = setting(
        "2", parsers.positive, "number of gunicorn processes; use one for each CPU core", "serve"
    )
    web_threads: int = setting(
        "32", parsers.positive, "concurrent publish requests, and concurrent reads, for each gunicorn process", "serve"
    )
    max_body_bytes: int = setting("1000000", parsers.positive, "maximum size of a message, bytes", "serve")
    max_batch_bytes: int = setting("10000000", parsers.positive, "maximum size of a batch request, bytes", "serve")
    max_batch_items: int = setting("10000", parsers.positive, "maximum number of items in a batch request", "serve")
    payload_index: Literal["on", "off"] = setting(
        "off", parsers.one_of("on", "off"), "index for ?contains, which halves the rate of storing: on or off", "init"
    )
    stream_listeners: int = setting(
        "100", parsers.positive, "concurrent listeners of GET /messages/stream for each gunicorn process", "serve"
    )
    publish_queue_bytes: int = setting(
        "32000000",
        parsers.positive,
        "maximum size of the publish queue of each gunicorn process, bytes; further messages are rejected",
        "serve",
    )
    api_keys: tuple[parsers.ApiKey, ...] = setting(
        "",
        parsers.api_keys,
        "API keys with scopes, as read+write:KEY,operate:KEY; none: no authentication",
        secret=True,
    )
    publish_timeout_seconds: int = setting(
        "5", parsers.positive, "longest wait for Kafka to acknowledge a message, seconds", "serve", "dead-letters"
    )

    workers: int = setting(
        "auto", parsers.workers, "number of Celery worker processes; auto: one for each available CPU core", "consume"
    )
    celery_monitoring: Literal["on", "off"] = setting(
        "off", parsers.one_of("on", "off"), "Celery's tools, such as Flower, can see the workers: on or off", "consume"
    )
    tasks: tuple[str, ...] = setting("", parsers.modules, "modules with your tasks, comma-separated", *PROCESSING)
    task_workers: int = setting(
        "auto", parsers.workers, "number of processes or threads for your tasks; auto: one for each CPU core", "consume"
    )
    task_pool: Literal["prefork", "threads"] = setting(
        "prefork",
        parsers.one_of("prefork", "threads"),
        "what runs your tasks: prefork, processes; or threads of one process, for functions that wait",
        "consume",
    )
    task_queues: tuple[str, ...] = setting(
        "", parsers.optional_names, "queues of your tasks that are run here, comma-separated; none: all", "consume"
    )
    task_failure_limit_percent: int = setting(
        "50", parsers.percent, "share of failures in a task's runs above which it is paused; 100: never", "consume"
    )
    batch_records: int = setting("2000", parsers.positive, "maximum number of records in a batch", "consume")
    batch_bytes: int = setting(
        "2000000", parsers.positive, "maximum size of a batch, bytes; a larger record is a batch of its own", "consume"
    )
    linger_ms: int = setting(
        "50", parsers.positive, "longest time to wait for a batch to fill, milliseconds", "consume"
    )
    in_flight: int = setting("8", parsers.positive, "maximum number of batches in flight", "consume")
    in_flight_bytes: int = setting(
        "32000000", parsers.positive, "maximum size of the batches in flight, bytes", "consume"
    )
    ordering: Literal["none", "partition", "key"] = setting(
        "none",
        parsers.one_of("none", "partition", "key"),
        "order in which records are stored: none, partition or key",
        "consume",
    )
    dead_letter_limit_percent: int = setting(
        "50",
        parsers.percent,
        "share of dead letters in a partition's recent records above which it is quarantined, percent; 100: never",
        "consume",
    )
    watchdog_seconds: int = setting(
        "120",
        parsers.patience,
        "restart a bridge or worker after this long without progress and without a known cause, seconds",
        "consume",
    )
    batch_deadline_seconds: int = setting("60", parsers.positive, "time limit for one batch, seconds", "consume")
    metrics_port: int = setting("0", parsers.port_or_none, "port for the metrics of a consumer pod; 0: none", "consume")

    retention_days: int = setting("0", parsers.days, "age at which messages are deleted, days; 0: never", "retention")
    dedupe_days: int = setting("0", parsers.days, "age at which ids are forgotten, days; 0: as messages", "retention")
    dead_letter_retention_days: int = setting(
        "0", parsers.days, "age at which redriven or discarded dead letters are deleted, days; 0: never", "retention"
    )

    run_retention_days: int = setting(
        "0",
        parsers.days,
        "age at which calls that have ended, and discarded runs, are deleted, days; 0: never",
        "retention",
    )

    local_dir: str = setting(
        ".local",
        parsers.name,
        "directory of the local stack for jars, data and logs; commands without a server use the stack that runs there",
        "local",
    )
    local_started: float = setting(
        "0", float, "Unix time at which the command was entered, for the startup time that local prints; 0: unknown"
    )

    prometheus_multiproc_dir: str | None = setting(
        "",
        parsers.optional_directory,
        "directory in which the processes of a pod share their metrics; if not set, a temporary directory",
    )
    otel_exporter_otlp_endpoint: str | None = setting(
        "",
        parsers.optional_url("http", "https"),
        "URL of the OpenTelemetry collector for traces (OTLP over HTTP); if not set, no traces",
    )

    app_env: str = setting(
        "development",
        parsers.one_of("development", "test", "production"),
        "name of the environment, added to every log line: development, test or production",
    )
    log_level: str = setting(
        "info",
        parsers.one_of("debug", "info", "warning", "error"),
        "lowest level of log lines: debug, info, warning or error",
    )
    log_format: str = setting("text", parsers.one_of("text", "json"), "format of log lines: text or json")

    @property
    def consumed_topics(self) -> tuple[str, ...]:
        """The topics that the bridge reads, and `init` creates."""
        return (*self.kafka_topics, self.kafka_calls_topic) if self.tasks else self.kafka_topics


def load(flags: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read settings from `flags` (by setting name), then `environment` (the process's own), then defaults.

    Raises ConfigurationError naming every bad value; a secret's value is never repeated.
    """
    return Settings(**parsed(fields(Settings), child_environment(flags or {}, environment)))
