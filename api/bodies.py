"""Reads the body of a request, up to a limit, with a length or chunked; checks its content type."""

import contextlib
from collections.abc import Sequence
from io import BytesIO
from typing import IO

from flask import Request, request
from flask.blueprints import Blueprint
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected

from api.problems import Problem, too_large
from tasks.json_value import parse

_OPERATORS_BYTES = 64_000  # a note has at most 1,000 characters, each of 12 bytes when escaped
_SKIPPED_BYTES, _READ_AT_ONCE = 16_000_000, 65_536  # of a rejected body; the client of a larger one may see a reset


def check_type(kind: str, taken: Sequence[str]) -> None:
    """Raises Problem unless the content type, which may be empty, is one of those that are taken."""
    if kind not in taken:
        detail = f"Content-Type is one of {', '.join(filter(None, taken))}, not {kind or 'absent'}."
        raise Problem(415, "unsupported-media-type", "Unsupported content type", detail)


def read(request: Request, largest: int) -> bytes:
    """The whole body, sent with Content-Length or chunked.

    Raises Problem when it has more than `largest` bytes or malformed chunks, ClientDisconnected when a part is missing.
    """
    length = request.content_length
    stream = request.environ["wsgi.input"]
    if length is not None and length > largest:
        _skip(stream)
        raise too_large(f"The body has {length} bytes; at most {largest} are allowed.")
    try:
        # Without a length the body may be cut at the limit: one byte more shows whether there is more.
        body: bytes = stream.read(largest + 1 if length is None else length)
    except OSError as error:
        raise ClientDisconnected from error
    except ParseException as error:
        detail = f"The body has Transfer-Encoding: chunked, and its chunks are malformed: {error}."
        raise Problem(400, "bad-chunks", "The chunks of the body are malformed", detail) from error
    if len(body) > largest:
        _skip(stream)
        raise too_large(f"The body has more than {largest} bytes; at most {largest} are allowed.")
    if length is not None and len(body) < length:
        raise ClientDisconnected
    return body


def _skip(stream: IO[bytes]) -> None:
    """Read the rest, so that the client has sent its body before the response: otherwise it may see a reset."""
    left = _SKIPPED_BYTES
    with contextlib.suppress(OSError, ParseException):
        while left > 0 and (part := stream.read(_READ_AT_ONCE)):
            left -= len(part)


def bound(blueprint: Blueprint) -> None:
    """Read and check the body of each POST to `blueprint` before its view, for the library, which has no limit."""
    blueprint.before_request(_read)


def _read() -> None:
    if request.method != "POST":
        return
    body = read(request, _OPERATORS_BYTES)
    if body and request.is_json:
        parse(body)
    request.environ["wsgi.input"] = BytesIO(body)
