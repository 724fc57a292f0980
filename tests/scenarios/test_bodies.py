"""Every way to send a body has the same limit, and the whole body is checked."""

import json
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from tests.programs import Program
from tests.world import World

_LETTER = "/dead-letters/00000000-0000-0000-0000-000000000000"


def _head(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: a", "Connection: close", *headers, "", ""]).encode()


def _chunks(body: bytes, size: int = 65_536) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _answer(world: World, *sent: bytes) -> tuple[int, dict[str, Any]]:
    """The status and the JSON body that the server answers to these bytes."""
    with socket.create_connection(("127.0.0.1", world.port), timeout=30) as connection:
        try:
            for part in sent:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
        except (ConnectionResetError, BrokenPipeError):
            pass  # rejected before everything was sent
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except ConnectionResetError:
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), json.loads(body)


def _chunked(world: World, path: str, body: bytes, kind: str = "application/json") -> tuple[int, dict[str, Any]]:
    return _answer(world, _head(path, f"Content-Type: {kind}", "Transfer-Encoding: chunked"), _chunks(body))


def _counted(world: World, path: str, body: bytes, kind: str = "application/json") -> tuple[int, dict[str, Any]]:
    return _answer(world, _head(path, f"Content-Type: {kind}", f"Content-Length: {len(body)}"), body)


def _lines(count: int) -> bytes:
    return b"".join(b'{"n": "%s"}\n' % (b"%d" % n).rjust(990, b"0") for n in range(count))


@pytest.mark.parametrize("send", [_chunked, _counted])
@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/messages/batch", _lines(12_000), "application/x-ndjson"),
        ("/messages/batch", _lines(10_000) + b" ", "application/x-ndjson"),
        ("/messages", b'{"n": "%s"}' % (b"x" * 2_000_000), "application/json"),
        ("/messages", b'{"n": 1}' + b" " * 1_000_000 + b"garbage", "application/json"),
        ("/dead-letters/redrive", b'{"topic": "none"}' + b" " * 2_000_000, "application/json"),
        (f"{_LETTER}/discard", b'{"note": "x"}' + b" " * 2_000_000, "application/json"),
        (f"{_LETTER}/redrive", b" " * 2_000_000, "application/json"),
    ],
    ids=["batch", "one-byte-more", "message", "blanks-then-garbage", "redrive", "discard", "redrive-one"],
)
def test_a_body_over_its_limit_is_413(
    server: tuple[World, Program], send: Any, path: str, body: bytes, kind: str
) -> None:
    status, problem = send(server[0], path, body, kind)
    assert (status, problem["type"]) == (413, "/problems/too-large")
    assert "at most" in problem["detail"]


@pytest.mark.parametrize("send", [_chunked, _counted])
def test_a_body_of_exactly_the_limit_is_taken_whole(server: tuple[World, Program], send: Any) -> None:
    status, answer = send(server[0], "/messages/batch", _lines(10_000), "application/x-ndjson")
    assert (status, answer["accepted"]) == (202, 10_000)
    status, answer = send(server[0], "/messages", b'{"n": 1}' + b" " * (1_000_000 - 8))
    assert status == 202


@pytest.mark.parametrize("send", [_chunked, _counted])
def test_what_follows_a_message_is_looked_at(server: tuple[World, Program], send: Any) -> None:
    status, problem = send(server[0], "/messages", b'{"n": 1}' + b" " * 900_000 + b"garbage")
    assert (status, problem["type"]) == (400, "/problems/not-json")


@pytest.mark.parametrize(
    ("sent", "slug"),
    [
        ([b"xyz\r\n{}\r\n0\r\n\r\n"], "bad-chunks"),
        ([b"-2\r\n{}\r\n0\r\n\r\n"], "bad-chunks"),
        ([b"2\r\n{}garbage\r\n0\r\n\r\n"], "bad-chunks"),
        ([b"2;=\r\n{}\r\n0\r\n\r\n"], "bad-chunks"),
        ([b"2\r\n{}\r\n0\r\nno trailer\r\n\r\n"], "bad-chunks"),
        ([b"2\r\n{}\r\n"], "incomplete-body"),
        ([b"5\r\n{}"], "incomplete-body"),
        ([b"2\r\n{}\r\n0\r\n"], "bad-chunks"),
        ([b""], "incomplete-body"),
    ],
)
@pytest.mark.parametrize("path", ["/messages", "/messages/batch", "/dead-letters/redrive", f"{_LETTER}/discard"])
def test_malformed_chunks_are_400(server: tuple[World, Program], path: str, sent: Sequence[bytes], slug: str) -> None:
    world, program = server
    head = _head(path, "Content-Type: application/json", "Transfer-Encoding: chunked")
    status, problem = _answer(world, head, *sent)
    assert (status, problem["type"]) == (400, f"/problems/{slug}")
    assert not program.lines("request.failed")
    assert "error" not in {line["level"] for line in program.lines()}


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 30_000, b'{"limit": NaN}'])
def test_an_operators_body_that_is_not_json_says_so(server: tuple[World, Program], body: bytes) -> None:
    world, program = server
    for path in ("/dead-letters/redrive", f"{_LETTER}/discard"):
        status, problem = _counted(world, path, body)
        assert (status, problem["type"]) in {(400, "/problems/not-json"), (400, "/problems/invalid-utf8")}
    assert not program.lines("request.failed")


def test_chunked_bodies_of_operators_are_read(server: tuple[World, Program]) -> None:
    world, _ = server
    assert _chunked(world, "/dead-letters/redrive", b'{"topic": "none"}') == (200, {"redriven": 0, "failed": {}})
    status, problem = _chunked(world, f"{_LETTER}/discard", b'{"note": "x"}')
    assert (status, problem["type"]) == (404, "/problems/not-found")
