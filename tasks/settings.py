"""The one reader of flags and environment: every setting with its flag, variable, default and meaning.

A flag wins over its variable, a variable over the default. All faults are reported at once.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Literal
from urllib.parse import urlsplit

from tasks.errors import ConfigurationError

COMMANDS = ("init", "serve", "consume", "local", "dead-letters", "retention")
_WITH_KAFKA = ("init", "serve", "consume", "local", "dead-letters")
_PROCESSING = ("init", "serve", "consume", "local")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


def _workers(text: str) -> int:
    return (os.cpu_count() or 1) if text == "auto" else _positive(text)


def _percent(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 100:
        raise ValueError("must be between 0 and 100")
    return number


def _days(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 36500:
        raise ValueError("must be between 0 and 36500")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65535:
        raise ValueError("must be between 1 and 65535")
    return number


def _port_or_none(text: str) -> int:
    return 0 if text == "0" else _port(text)


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise ValueError("must name at least one")
    return names


def _optional_names(text: str) -> tuple[str, ...]:
    return _names(text) if text.strip() else ()


def _optional_directory(text: str) -> str | None:
    if text and not text.startswith("/"):
        raise ValueError("must be an absolute path")
    return text or None


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text.lower()

    return parse


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if urlsplit(text).scheme not in schemes:
            raise ValueError(f"must begin with {' or '.join(f'{s}://' for s in schemes)}")
        return text

    return parse


def _optional_url(*schemes: str) -> Callable[[str], str | None]:
    parse = _url(*schemes)
    return lambda text: parse(text) if text else None


def _setting(default: str, parse: Callable[[str], Any], meaning: str, *commands: str, secret: bool = False) -> Any:
    """Declare one setting. `commands` are those that take it as a flag; none: variable only."""
    metadata = {"default": default, "parse": parse, "meaning": meaning, "commands": commands, "secret": secret}
    return field(metadata=metadata)


@dataclass(frozen=True)
class ApiKey:
    """A key and what it allows: read, write, operate."""

    scopes: frozenset[str]
    secret: str = field(repr=False)


_SCOPES = frozenset({"read", "write", "operate"})


def _api_keys(text: str) -> tuple[ApiKey, ...]:
    keys = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        scopes, colon, secret = part.partition(":")
        named = frozenset(scopes.split("+"))
        if not colon or len(secret) < 8 or not named <= _SCOPES:
            raise ValueError("must be SCOPES:KEY, ... with scopes as in read+write+operate, and 8 characters a key")
        keys.append(ApiKey(named, secret))
    return tuple(keys)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a process is told from outside; validated whole, read once, passed down."""

    kafka_brokers: tuple[str, ...] = _setting(
        "localhost:9092", _names, "Kafka bootstrap servers, host:port, comma separated", *_WITH_KAFKA
    )
    kafka_topics: tuple[str, ...] = _setting(
        "messages", _names, "topics, comma separated; the first is the API's default", *_PROCESSING
    )
    kafka_partitions: int = _setting("6", _positive, "partitions of each topic", "init", "local")
    kafka_replication_factor: int = _setting("1", _positive, "replicas of each partition", "init")
    kafka_group_id: str = _setting("backend", _name, "consumer group", "serve", "consume")
    database_url: str = _setting(
        "postgresql://localhost/backend",
        _url("postgresql", "postgres"),
        "PostgreSQL to store messages in",
        *COMMANDS,
        secret=True,
    )
    redis_url: str | None = _setting(
        "",
        _optional_url("redis", "rediss", "unix"),
        "Redis that carries tasks; none: consume starts its own",
        "consume",
        secret=True,
    )
    wait_seconds: int = _setting("60", _positive, "how long init waits for each service", "init")

    address: str = _setting("0.0.0.0", _name, "address to listen on", "serve", "consume")
    port: int = _setting("8080", _port, "port to listen on", "serve", "local")
    cors_origins: tuple[str, ...] = _setting(
        "", _optional_names, "origins that browsers may call from, comma separated, or *", "serve"
    )
    web_processes: int = _setting("2", _positive, "gunicorn processes, best as many as cores", "serve")
    web_threads: int = _setting("32", _positive, "requests that each gunicorn process serves at once", "serve")
    max_body_bytes: int = _setting("1000000", _positive, "largest message", "serve")
    max_batch_bytes: int = _setting("10000000", _positive, "largest body of a batch", "serve")
    max_batch_items: int = _setting("10000", _positive, "most items in a batch", "serve")
    payload_index: Literal["on", "off"] = _setting(
        "on", _one_of("on", "off"), "an index for ?contains, which storing pays for: on or off", "init"
    )
    stream_listeners: int = _setting(
        "100", _positive, "listeners of GET /messages/stream that each gunicorn process serves at once", "serve"
    )
    publish_queue_bytes: int = _setting(
        "32000000", _positive, "most bytes of a process that wait for Kafka; beyond, messages are refused", "serve"
    )
    api_keys: tuple[ApiKey, ...] = _setting(
        "", _api_keys, "who may use the API, as read+write:KEY,operate:KEY; none: everybody", secret=True
    )
    publish_timeout_seconds: int = _setting(
        "5", _positive, "longest wait for Kafka to acknowledge, seconds", "serve", "dead-letters"
    )

    workers: int = _setting("auto", _workers, "Celery worker processes; auto: one for each core", "consume")
    batch_records: int = _setting("2000", _positive, "most records in a batch", "consume")
    batch_bytes: int = _setting("2000000", _positive, "most bytes in a batch, unless one record is larger", "consume")
    linger_ms: int = _setting("50", _positive, "longest wait for a batch to fill, milliseconds", "consume")
    in_flight: int = _setting("8", _positive, "most batches handed over and not yet stored", "consume")
    in_flight_bytes: int = _setting("32000000", _positive, "most bytes handed over and not yet stored", "consume")
    ordering: Literal["none", "partition", "key"] = _setting(
        "none",
        _one_of("none", "partition", "key"),
        "what is stored in order of offsets: none, partition or key",
        "consume",
    )
    dead_letter_limit_percent: int = _setting(
        "50", _percent, "a partition stops when more of its recent records are dead letters; 100: never", "consume"
    )
    watchdog_seconds: int = _setting(
        "120", _positive, "a bridge that does nothing for so long, and knows no reason, ends itself", "consume"
    )
    batch_deadline_seconds: int = _setting(
        "60", _positive, "a batch without result for so long is handed over again", "consume"
    )
    metrics_port: int = _setting(
        "0", _port_or_none, "port on which a consumer pod shows its metrics; 0: none", "consume"
    )

    retention_days: int = _setting("0", _days, "messages stored longer ago are deleted; 0: none", "retention")
    dead_letter_retention_days: int = _setting(
        "0", _days, "dead letters redriven or discarded longer ago are deleted; 0: none", "retention"
    )

    local_dir: str = _setting(".local", _name, "where the local stack keeps jars, data and logs", "local")
    local_started: float = _setting(
        "0", float, "when the user typed the command, seconds since 1970; 0: when local started"
    )

    prometheus_multiproc_dir: str | None = _setting(
        "",
        _optional_directory,
        "where the processes of a pod share what they count; none: a directory that is made for it",
    )
    otel_exporter_otlp_endpoint: str | None = _setting(
        "",
        _optional_url("http", "https"),
        "OpenTelemetry collector (OTLP over HTTP) that traces go to; none: no traces",
    )

    app_env: str = _setting("development", _one_of("development", "test", "production"), "shown in every log line")
    log_level: str = _setting("info", _one_of("debug", "info", "warning", "error"), "least severe line logged")
    log_format: str = _setting("text", _one_of("text", "json"), "how log lines are written")


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
    if faults:
        raise ConfigurationError("; ".join(faults))
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


def table() -> Iterator[Flag]:
    """Every setting in order of declaration."""
    for setting in fields(Settings):
        yield Flag(setting.name, setting.metadata["default"], setting.metadata["meaning"], setting.metadata["commands"])
