"""Checks before a client is created whether the brokers accept us: a client reports no reason, or retries forever.

It implements the needed part of Kafka's protocol (https://kafka.apache.org/protocol, SASL) and of RFC 5802 (SCRAM).
"""

import base64
import contextlib
import hashlib
import hmac
import secrets
import socket
import ssl
import struct
from collections.abc import Callable
from urllib.parse import urlsplit

from tasks.config import tls
from tasks.config.settings import Settings
from tasks.errors import AccessDenied

_HANDSHAKE, _AUTHENTICATE = 17, 36  # the API keys of the two requests
_NONE, _UNSUPPORTED_MECHANISM, _NO_SASL_HERE, _REFUSED = 0, 33, 34, 58  # error codes
_TLS_ALERT = b"\x15\x03"
_PORT = 9092


def check(settings: Settings) -> None:
    """Raises AccessDenied if no broker accepts us and one gives a reason or has an untrusted certificate.

    Unclear results are left to the client: a broker that does not respond, or not in time.
    """
    denied: AccessDenied | None = None
    for address in settings.kafka_brokers:
        try:
            with contextlib.suppress(OSError, ValueError, KeyError, struct.error):
                _enter(settings, address)
                return
        except AccessDenied as error:
            denied = error
    if denied is not None:
        raise denied


def _enter(settings: Settings, address: str) -> None:
    place = urlsplit(f"//{address}")
    trusted = None
    if settings.kafka_security_protocol.endswith("ssl"):
        trusted = tls.context(settings.kafka_ssl_ca_file, settings.kafka_ssl_cert_file, settings.kafka_ssl_key_file)
    try:
        with tls.connect(place.hostname or "", place.port or _PORT, trusted) as connection:
            _authenticate(settings, address, connection)
    except ssl.SSLEOFError:
        raise  # a broker that is being stopped may end like this
    except ssl.SSLError as error:
        reason = tls.distrust(error)
        if reason is not None:
            raise AccessDenied(
                f"the certificate of Kafka at {address} is not trusted (KAFKA_SSL_CA_FILE): {reason}"
            ) from error
        reason = error.reason.lower().replace("_", " ") if hasattr(error, "reason") else error.args[-1]
        raise AccessDenied(
            f"the TLS handshake with Kafka at {address} failed (KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CERT_FILE): {reason}"
        ) from error


def _authenticate(settings: Settings, address: str, connection: socket.socket) -> None:
    with_sasl = settings.kafka_security_protocol.startswith("sasl")
    mechanism = settings.kafka_sasl_mechanism.upper()
    code, offered = _handshake(connection, mechanism)
    if code == _NO_SASL_HERE:
        if with_sasl:
            raise AccessDenied(f"Kafka at {address} does not use SASL; KAFKA_SECURITY_PROTOCOL must be without sasl")
        return
    if not with_sasl:
        raise AccessDenied(f"Kafka at {address} requires SASL: KAFKA_SECURITY_PROTOCOL must be one with sasl")
    if code == _UNSUPPORTED_MECHANISM:
        raise AccessDenied(
            f"Kafka at {address} does not support KAFKA_SASL_MECHANISM {mechanism}, but {', '.join(offered)}"
        )
    user, password = settings.kafka_sasl_username or "", settings.kafka_sasl_password or ""

    def say(text: str) -> str:
        code, message, response = _token(connection, text.encode())
        if code == _REFUSED:
            raise AccessDenied(
                f"Kafka at {address} refused the user or password (KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD): {message}"
            )
        return response.decode()

    if mechanism == "PLAIN":
        say(f"\0{user}\0{password}")
    else:
        _scram(mechanism.removeprefix("SCRAM-").replace("-", "").lower(), user, password, say)


def _scram(digest: str, user: str, password: str, say: Callable[[str], str]) -> None:
    escaped = user.replace("=", "=3D").replace(",", "=2C")
    first = f"n={escaped},r={secrets.token_hex(16)}"
    challenge = say(f"n,,{first}")
    parameters = dict(part.split("=", 1) for part in challenge.split(","))
    last = f"c=biws,r={parameters['r']}"
    salted = hashlib.pbkdf2_hmac(digest, password.encode(), base64.b64decode(parameters["s"]), int(parameters["i"]))
    key = hmac.digest(salted, b"Client Key", digest)
    stored = hashlib.new(digest, key).digest()
    signature = hmac.digest(stored, f"{first},{challenge},{last}".encode(), digest)
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    say(f"{last},p={base64.b64encode(proof).decode()}")


def _handshake(connection: socket.socket, mechanism: str) -> tuple[int, list[str]]:
    """The broker's error code for a mechanism, and the mechanisms that it offers."""
    response = _ask(connection, _HANDSHAKE, 1, struct.pack(">h", len(mechanism)) + mechanism.encode())
    code, count = struct.unpack_from(">hi", response)
    offered, at = [], 6
    for _ in range(count):
        (length,) = struct.unpack_from(">h", response, at)
        offered.append(response[at + 2 : at + 2 + length].decode())
        at += 2 + length
    return code, offered


def _token(connection: socket.socket, token: bytes) -> tuple[int, str, bytes]:
    """The broker's response to a step of authentication: error code, message, and token."""
    response = _ask(connection, _AUTHENTICATE, 0, struct.pack(">i", len(token)) + token)
    code, length = struct.unpack_from(">hh", response)
    end = 4 + max(length, 0)
    return code, response[4:end].decode(), response[end + 4 :]


def _ask(connection: socket.socket, key: int, version: int, body: bytes) -> bytes:
    request = struct.pack(">hhih", key, version, 0, -1) + body  # correlation id 0, and a client without a name
    connection.sendall(struct.pack(">i", len(request)) + request)
    head = _exactly(connection, 4)
    if head.startswith(_TLS_ALERT):
        raise ssl.SSLError("it uses TLS on this port")
    return _exactly(connection, struct.unpack(">i", head)[0])[4:]


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError("the broker ended the connection")
        data += more
    return data
