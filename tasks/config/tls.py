"""TLS to a server: the trusted CAs, and the reason why a certificate is not trusted."""

import re
import socket
import ssl
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_SECONDS = 2.0  # for each of the connection, the handshake and a response
_UNSIGNED = "not signed by a trusted CA"
_PLAINER = {
    "unable to get local issuer certificate": _UNSIGNED,
    "self-signed certificate": _UNSIGNED,
    "self-signed certificate in certificate chain": _UNSIGNED,
}


def context(ca_file: str | None, cert_file: str | None = None, key_file: str | None = None) -> ssl.SSLContext:
    """A context that trusts the CAs in `ca_file`, or the system's, and checks the host name. Raises OSError."""
    made = ssl.create_default_context(cafile=ca_file)
    if cert_file is not None:
        made.load_cert_chain(cert_file, key_file, password="")  # without a password OpenSSL would ask on the terminal
    return made


def pem_file(text: str) -> str | None:
    """The path of an existing file. Raises ValueError if there is none."""
    if text and not Path(text).is_file():
        raise ValueError("is not a file")
    return text or None


def ca_file(text: str) -> str | None:
    """The path of a file of CA certificates. Raises ValueError if it contains none."""
    try:
        context(pem_file(text))
    except OSError:
        raise ValueError("contains no readable PEM certificate") from None
    return text or None


def connect(host: str, port: int, trusted: ssl.SSLContext | None, greeting: bytes = b"") -> socket.socket:
    """A connection, over TLS if `trusted` is given; `greeting` requests TLS from a server that starts in plain text.

    Raises OSError.
    """
    plain = socket.create_connection((host, port), timeout=_SECONDS)
    try:
        if greeting:
            plain.sendall(greeting)
            plain.recv(1)
        return plain if trusted is None else trusted.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def distrust(error: Exception) -> str | None:
    """Why a certificate is not trusted; None if the error, of Python's ssl or one that quotes it, has another cause."""
    match = re.search(r"certificate verify failed: (.*?)\.? \(_ssl", str(error))
    return _PLAINER.get(match[1], match[1]) if match else None


def redis_url(url: str, ca_file: str | None) -> str:
    """`url` with which redis-py and kombu check the same; by default kombu accepts every certificate."""
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return url
    options = {"ssl_cert_reqs": "required", **({"ssl_ca_certs": ca_file} if ca_file else {})}
    return urlunsplit(parts._replace(query=urlencode({**options, **dict(parse_qsl(parts.query))})))
