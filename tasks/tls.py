"""TLS to a server: whom we trust, and in a sentence why a server is not trusted."""

import re
import socket
import ssl
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_SECONDS = 2.0  # for each of connecting, the handshake and an answer
_UNSIGNED = "no authority that we trust has signed it"
_PLAINER = {
    "unable to get local issuer certificate": _UNSIGNED,
    "self-signed certificate": _UNSIGNED,
    "self-signed certificate in certificate chain": _UNSIGNED,
}


def context(ca_file: str | None, cert_file: str | None = None, key_file: str | None = None) -> ssl.SSLContext:
    """Trusts the authorities in `ca_file`, or the system's, for the host that is asked for. Raises OSError."""
    made = ssl.create_default_context(cafile=ca_file)
    if cert_file is not None:
        made.load_cert_chain(cert_file, key_file, password="")  # without one OpenSSL would ask the terminal
    return made


def pem_file(text: str) -> str | None:
    """The setting of a file that is there. Raises ValueError when it is not."""
    if text and not Path(text).is_file():
        raise ValueError("is no file")
    return text or None


def ca_file(text: str) -> str | None:
    """The setting of a file of authorities. Raises ValueError when there are none in it."""
    try:
        context(pem_file(text))
    except OSError:
        raise ValueError("holds no certificate as PEM that can be read") from None
    return text or None


def connect(host: str, port: int, trusted: ssl.SSLContext | None, greeting: bytes = b"") -> socket.socket:
    """A connection, over TLS if `trusted` is given; `greeting` asks for TLS where that is not spoken from the start.

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
    """Why a certificate is not trusted, if that is what the error of Python's ssl, or one that quotes it, says."""
    found = re.search(r"certificate verify failed: (.*?)\.? \(_ssl", str(error))
    return _PLAINER.get(found[1], found[1]) if found else None


def redis_url(url: str, ca_file: str | None) -> str:
    """`url` so that redis-py and kombu trust the same; by itself kombu takes every certificate."""
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return url
    wanted = {"ssl_cert_reqs": "required", **({"ssl_ca_certs": ca_file} if ca_file else {})}
    return urlunsplit(parts._replace(query=urlencode({**wanted, **dict(parse_qsl(parts.query))})))
