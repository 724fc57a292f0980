"""`make bench-http`: this API against the same Flask without Kafka, and its batches against the producer alone.

Everything runs on this machine, the load generator too. Contestants take turns in each round, and the best round of
each counts; ratios within a run are more reliable than figures. It also prints the memory of an overloaded server.
"""

import argparse
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import orjson
import psutil
import requests

from bench import servers
from bench.messages import generate
from bootstrap.localstack.ports import free_port
from tests.programs import Program
from tests.waiting import wait_until
from tests.world import World

_BATCH = 100
_AHEAD = 2_000  # messages in flight of the producer alone


@dataclass
class Run:
    """The result of a load: responses by status, and the seconds of each."""

    seconds: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    def rate(self) -> float:
        """Requests with status 202 a second."""
        return self.statuses.get(202, 0) / self.seconds

    def p99(self) -> float:
        """The 99th percentile of the duration, milliseconds."""
        return statistics.quantiles(self.latencies, n=100)[98] * 1000


class Client:
    """A lean HTTP client with one connection and prepared requests, so that it measures the server."""

    def __init__(self, port: int, path: str, bodies: list[bytes]) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        self._requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
        self._port = port
        self._next = 0
        self._connection: socket.socket | None = None

    def send(self) -> int:
        """Send the next request; returns the status, 0 if the connection broke."""
        try:
            if self._connection is None:
                self._connection = socket.create_connection(("127.0.0.1", self._port), timeout=60)
            self._next = (self._next + 1) % len(self._requests)
            self._connection.sendall(self._requests[self._next])
            return self._answer(self._connection)
        except OSError:
            self.close()
            return 0

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answer(self, connection: socket.socket) -> int:
        received = connection.recv(65536)
        while b"\r\n\r\n" not in received:
            received += self._more(connection)
        head, _, body = received.partition(b"\r\n\r\n")
        lowered = head.lower()
        length = int(lowered.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        missing = length - len(body)
        while missing > 0:
            missing -= len(self._more(connection))
        if b"connection: close" in lowered:
            self.close()
        return int(head.split(b" ", 2)[1])

    def _more(self, connection: socket.socket) -> bytes:
        part = connection.recv(65536)
        if not part:
            raise ConnectionResetError
        return part


def load(port: int, path: str, bodies: list[bytes], clients: int, seconds: float, rate: float | None = None) -> Run:
    """Send for `seconds` from `clients` connections: as fast as possible, or `rate` requests a second.

    With a rate, latency counts from the time at which a request was due, so that queueing is included.
    """
    run, lock, end = Run(), threading.Lock(), time.perf_counter() + seconds

    def one(number: int) -> None:
        client, statuses, latencies = Client(port, path, bodies), dict[int, int](), list[float]()
        step = None if rate is None else clients / rate
        due = time.perf_counter() + (0 if step is None else step * number / clients)
        while (now := time.perf_counter()) < end:
            if step is None:
                due = now
            elif due > now:
                time.sleep(due - now)
            status = client.send()
            latencies.append(time.perf_counter() - due)
            statuses[status] = statuses.get(status, 0) + 1
            due += step or 0
        client.close()
        with lock:
            run.latencies += latencies
            for status, count in statuses.items():
                run.statuses[status] = run.statuses.get(status, 0) + count

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.seconds = time.perf_counter() - began
    return run


def _bare(port: int) -> "subprocess.Popen[bytes]":
    code = f"from bench.bare import run; run({port})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=servers.ROOT)
    wait_until(lambda: _answers(port), "the bare server answers")
    return process


def _answers(port: int) -> bool:
    with suppress(requests.ConnectionError):
        return requests.post(f"http://127.0.0.1:{port}/messages", json={}, timeout=2).status_code == 202
    return False


def _producer_alone(world: World, bodies: list[bytes], seconds: float) -> float:
    from bridge.kafka.publisher import KafkaPublisher

    publisher = KafkaPublisher(world.settings())
    sent, end = 0, time.perf_counter() + seconds
    began = time.perf_counter()
    waits: deque[Callable[[], object]] = deque()
    while time.perf_counter() < end:
        waits += [publisher.send(world.topic, None, bodies[(sent + n) % len(bodies)], []) for n in range(_BATCH)]
        sent += _BATCH
        while len(waits) > _AHEAD:  # enough in flight that the producer never waits idly for Kafka
            waits.popleft()()
    for wait in waits:
        wait()
    rate = sent / (time.perf_counter() - began)
    publisher.close()
    return rate


def _memory(program: Program) -> float:
    total = 0
    for process in program.family():
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total / (1 << 20)


def _flood(world: World, program: Program, bodies: list[bytes], seconds: float) -> None:
    print(f"\noverload: 200 clients with messages of 20 kB for {seconds:.0f} s")
    large = [orjson.dumps({"filler": "x" * 20_000})]
    load(world.port, "/messages", large, 200, 5)  # warm
    first = _memory(program)
    for minute in range(5):
        run = load(world.port, "/messages", large, 200, seconds / 5)
        accepted = sorted(run.latencies)
        print(
            f"  part {minute + 1}: {_memory(program):.0f} MiB (began with {first:.0f}), answers {run.statuses},"
            f" slowest {accepted[-1] * 1000:.0f} ms, p99 {run.p99():.0f} ms"
        )


def main() -> None:
    """Run the contestants in turns and print one table."""
    parser = argparse.ArgumentParser(prog="bench.http", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8, help="of each contestant in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=48)
    parser.add_argument("--overload-seconds", type=float, default=300, help="0: no overload")
    options = parser.parse_args()
    with servers.started() as stack:
        _compare(World(stack), options)


def _compare(world: World, options: argparse.Namespace) -> None:
    bodies = [value for _, value in generate(1000, 1)]
    batches = [b"[" + b",".join(bodies[at : at + _BATCH]) + b"]" for at in range(0, 1000, _BATCH)]
    world.init()
    program = world.serve(log_level="info")
    bare_port = free_port()
    bare = _bare(bare_port)
    seconds, clients = options.seconds, options.clients
    best = {"bare": 0.0, "single": 0.0, "batch": 0.0, "producer": 0.0}
    try:
        for _ in range(options.rounds):
            best["bare"] = max(best["bare"], load(bare_port, "/messages", bodies, clients, seconds).rate())
            best["single"] = max(best["single"], load(world.port, "/messages", bodies, clients, seconds).rate())
            best["producer"] = max(best["producer"], _producer_alone(world, bodies, seconds))
            many = load(world.port, "/messages/batch", batches, 8, seconds)
            best["batch"] = max(best["batch"], many.rate() * _BATCH)
        half = load(world.port, "/messages", bodies, clients, seconds, rate=best["single"] / 2)
        print("| way | messages/s | ratio |\n|---|---|---|")
        print(f"| (a) the same Flask and gunicorn, 202 without Kafka | {best['bare']:,.0f} | 1 |")
        print(f"| this API, POST /messages | {best['single']:,.0f} | {best['single'] / best['bare']:.2f} of (a) |")
        print(f"| (b) the producer alone | {best['producer']:,.0f} | 1 |")
        print(
            f"| this API, batches of {_BATCH} | {best['batch']:,.0f} | {best['batch'] / best['producer']:.2f} of (b) |"
        )
        print(f"\nat half of the top rate ({half.rate():,.0f}/s): p99 {half.p99():.1f} ms, answers {half.statuses}")
        if options.overload_seconds:
            _flood(world, program, bodies, options.overload_seconds)
    finally:
        bare.terminate()
        bare.wait()
        world.close()


if __name__ == "__main__":
    main()
