"""Parsers of settings. Each takes text and raises ValueError with the expected format."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tasks.config.cpu import cores


def positive(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


def workers(text: str) -> int:
    """A number of processes; auto: one for each core this process may use."""
    return cores() if text == "auto" else positive(text)


def _between(least: int, most: int, text: str) -> int:
    number = int(text)
    if not least <= number <= most:
        raise ValueError(f"must be between {least} and {most}")
    return number


def percent(text: str) -> int:
    """A whole number from 0 to 100."""
    return _between(0, 100, text)


def days(text: str) -> int:
    """A number of days, 100 years at most."""
    return _between(0, 36500, text)


def patience(text: str) -> int:
    """Seconds, 30 to 3,600. Kafka may need 15 to admit a bridge to its group, and an outage is noticed after 20."""
    return _between(30, 3600, text)


def port(text: str) -> int:
    """A port."""
    return _between(1, 65535, text)


def port_or_none(text: str) -> int:
    """A port; 0: none."""
    return 0 if text == "0" else port(text)


def name(text: str) -> str:
    """Text that is not blank."""
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def optional_name(text: str) -> str | None:
    """Text that is not blank, or nothing."""
    return name(text) if text else None


def names(text: str) -> tuple[str, ...]:
    """Names, comma separated, at least one."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise ValueError("must name at least one")
    return names


def optional_names(text: str) -> tuple[str, ...]:
    """Names, comma separated, or none."""
    return names(text) if text.strip() else ()


def modules(text: str) -> tuple[str, ...]:
    """Names of Python modules, comma separated, or none."""
    found = optional_names(text)
    for module in found:
        if not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"{module!r} is not the name of a module, such as shop.tasks")
    return found


_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def origins(text: str) -> tuple[str, ...]:
    """Origins as browsers send them (RFC 6454), comma-separated; or none; or only `*`, for all origins."""
    parts = optional_names(text)
    if "*" in parts and len(parts) > 1:
        raise ValueError("* allows every origin and must be the only value")
    return tuple(part if part == "*" else _origin(part) for part in parts)


def _origin(text: str) -> str:
    parts = _ORIGIN.fullmatch(text.lower())
    try:
        if parts is None:
            raise ValueError
        scheme, host = parts["scheme"], parts["host"]
        if host.startswith("["):
            host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
        if parts["port"] is None:
            return f"{scheme}://{host}"
        number = port(parts["port"])
    except ValueError:
        raise ValueError(
            f"{text!r} is not an origin: write scheme://host or scheme://host:port, or only * for every origin"
        ) from None
    # Browsers omit the default port of the scheme.
    return f"{scheme}://{host}" if number == _DEFAULT_PORTS.get(scheme) else f"{scheme}://{host}:{number}"


def optional_directory(text: str) -> str | None:
    """An absolute path, or nothing."""
    if text and not text.startswith("/"):
        raise ValueError("must be an absolute path")
    return text or None


def one_of(*choices: str) -> Callable[[str], str]:
    """One of `choices`, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text.lower()

    return parse


def url(*schemes: str) -> Callable[[str], str]:
    """A URL with one of `schemes`."""

    def parse(text: str) -> str:
        if urlsplit(text).scheme not in schemes:
            raise ValueError(f"must begin with {' or '.join(f'{s}://' for s in schemes)}")
        return text

    return parse


def optional_url(*schemes: str) -> Callable[[str], str | None]:
    """A URL with one of `schemes`, or nothing."""
    parse = url(*schemes)
    return lambda text: parse(text) if text else None


@dataclass(frozen=True)
class ApiKey:
    """A key and its scopes: read, write, operate."""

    scopes: frozenset[str]
    secret: str = field(repr=False)


_SCOPES = frozenset({"read", "write", "operate"})


def api_keys(text: str) -> tuple[ApiKey, ...]:
    """API keys with their scopes."""
    keys = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        scopes, colon, secret = part.partition(":")
        named = frozenset(scopes.split("+"))
        if not colon or len(secret) < 8 or not named <= _SCOPES:
            raise ValueError(
                "must be SCOPES:KEY, ... with scopes such as read+write+operate and keys of at least 8 characters"
            )
        keys.append(ApiKey(named, secret))
    return tuple(keys)
