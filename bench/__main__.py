"""`make bench`: drains the same messages with a naive bridge, with a plain process, by hand, and with this backend.

Prints one table of messages/s, CPU seconds and memory, checks that no message is missing, and writes
JSON and a plot to bench/results/.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson
import psutil
import psycopg2
from tqdm import tqdm

from bench import servers, usage
from bench.messages import generate, produce
from bench.report import write
from bootstrap.localstack.stack import Stack

_WATCH_SECONDS = 0.25
_SAMPLE_SECONDS = 1.0
_LONGEST_SECONDS = 300


@dataclass(frozen=True)
class Contestant:
    """A way to drain a topic: its processes, and the number of messages."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    messages: int
    workers: int
    ordering: str = "none"
    kafka_client: str = "confluent"
    table: str = "message"


@dataclass(frozen=True)
class Figures:
    """The figures of a run. Seconds are from the assignment of partitions to the last commit in PostgreSQL."""

    name: str
    messages: int
    seconds: float
    per_second: float
    cpu_seconds_per_million: dict[str, float]
    peak_mib: dict[str, float]
    peak_mib_together: float
    complete: bool


def main() -> None:
    """Run all contestants one after the other on the same servers."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--naive-messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3, help="number of runs of each contestant; the median counts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="contestants whose name contains this, or one of several: a|b")
    options = parser.parse_args()
    with servers.started() as stack:
        figures = _run_all(stack, options)
    write(figures, servers.ROOT / "bench" / "results", options.messages)


def _run_all(stack: Stack, options: argparse.Namespace) -> list[Figures]:
    # Without the index of payloads, which costs all contestants alike (docs/decisions/0024-optional-payload-index.md).
    own = {"LOG_FORMAT": "json", "PYTHONPATH": str(servers.ROOT), "PAYLOAD_INDEX": "off"}
    environment = {**os.environ, **stack.variables, **own}
    for topic, count in (("bench", options.messages), ("bench-naive", options.naive_messages)):
        init = {**environment, "KAFKA_TOPICS": topic, "LOG_LEVEL": "warning"}
        subprocess.run([sys.executable, "-m", "bootstrap", "init"], env=init, check=True)
        produce(stack.variables["KAFKA_BROKERS"], topic, count, options.seed)
    runs: dict[str, list[Figures]] = {}
    chosen = [c for c in _contestants(options) if any(part in c.name for part in options.only.split("|"))]
    for number, contestant in enumerate(chosen * options.rounds):
        with tempfile.NamedTemporaryFile(suffix=".log") as log:
            figures = _Run(stack, contestant, environment, options.seed, number, log).measure()
        print(f"  {figures.name}: {figures.per_second:,.0f} messages/s", flush=True)
        runs.setdefault(contestant.name, []).append(figures)
    return [sorted(of_one, key=lambda run: run.per_second)[len(of_one) // 2] for of_one in runs.values()]


def _contestants(options: argparse.Namespace) -> Sequence[Contestant]:
    python = sys.executable
    naive = (
        (python, "-m", "bench.naive", "worker"),
        (python, "-m", "bench.naive", "bridge", str(options.naive_messages)),
    )
    plain = ((python, "-m", "bench.plain", str(options.messages)),)
    by_hand = ((python, "-m", "bench.by_hand", str(options.messages)),)
    consume = ((python, "-m", "bootstrap", "consume"),)
    return (
        Contestant("(a) naive, 2 workers", naive, options.naive_messages, 2),
        Contestant("(b) plain, one process", plain, options.messages, 1),
        *(Contestant(f"(c) backend, {n} worker{'s'[: n - 1]}", consume, options.messages, n) for n in (1, 2, 4)),
        Contestant("(c) 2 workers, kafka-python", consume, options.messages, 2, kafka_client="kafka-python"),
        *(Contestant(f"(c) 2 workers, by {kind}", consume, options.messages, 2, kind) for kind in ("partition", "key")),
        Contestant("(d) by hand, one process", by_hand, options.messages, 1, table="by_hand"),
    )


class _Run:
    """A contestant that drains a topic."""

    def __init__(
        self, stack: Stack, contestant: Contestant, environment: dict[str, str], seed: int, number: int, log: IO[bytes]
    ) -> None:
        self._stack = stack
        self._contestant = contestant
        self._seed = seed
        self._topic = "bench-naive" if contestant.name.startswith("(a)") else "bench"
        self._environment = {
            **environment,
            "KAFKA_TOPICS": self._topic,
            "KAFKA_GROUP_ID": f"bench-{number}",
            "WORKERS": str(contestant.workers),
            "ORDERING": contestant.ordering,
            "KAFKA_CLIENT": contestant.kafka_client,
        }
        if contestant.name.startswith("(c)"):
            del self._environment["REDIS_URL"]  # as in a pod: its own Redis counts for its memory and CPU
        self._log = log
        self._read = 0  # bytes of the log
        self._parsed: list[dict[str, Any]] = []
        self._next_sample = 0.0
        self._peak: dict[int, tuple[str, float]] = {}
        self._together = 0.0
        self._cpu: dict[int, tuple[str, float]] = {}

    def measure(self) -> Figures:
        """Drain the topic, and measure."""
        self._sql("TRUNCATE message, dead_letter, claim, source, span, message_count")
        self._sql("CHECKPOINT")
        running = self._servers()
        before = {name: usage.server_cpu(process) for name, process in running.items()}
        processes = [
            subprocess.Popen(command, env=self._environment, stdout=self._log, stderr=self._log, cwd=servers.ROOT)
            for command in self._contestant.commands
        ]
        try:
            self._watch(processes)
            used = {name: usage.server_cpu(process) - before[name] for name, process in running.items()}
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(60)
        return self._figures(used)

    def _watch(self, processes: list["subprocess.Popen[bytes]"]) -> None:
        done, count = 0, self._contestant.messages
        deadline = time.monotonic() + _LONGEST_SECONDS
        with tqdm(total=count, desc=self._contestant.name, unit="msg") as bar:
            while done < count:
                time.sleep(_WATCH_SECONDS)
                self._sample(processes)
                done = sum(line["records"] for line in self._lines("batch.stored"))
                bar.update(done - bar.n)
                if time.monotonic() > deadline:
                    sys.exit(f"{self._contestant.name} stored {done} of {count} in {_LONGEST_SECONDS} s")

    def _figures(self, used: dict[str, float]) -> Figures:
        count = self._contestant.messages
        began = min(servers.logged_at(line) for line in self._lines("partitions.assigned"))
        seconds = max(servers.logged_at(line) for line in self._lines("batch.stored")) - began
        cpu: dict[str, float] = dict(used)
        for name, value in self._cpu.values():
            cpu[name] = cpu.get(name, 0.0) + value
        peak: dict[str, float] = {}
        for name, value in self._peak.values():
            peak[name] = max(peak.get(name, 0.0), value)
        return Figures(
            self._contestant.name,
            count,
            round(seconds, 3),
            count / seconds,
            {name: round(value * 1e6 / count, 1) for name, value in cpu.items()},
            {name: round(value, 1) for name, value in peak.items()},
            round(self._together, 1),
            self._complete(),
        )

    def _complete(self) -> bool:
        """Whether every message is stored once, and nothing else."""
        wanted = sorted(orjson.loads(value)["id"] for _, value in generate(self._contestant.messages, self._seed))
        return (
            sorted(str(row[0]) for row in self._sql(f"SELECT payload->>'id' FROM {self._contestant.table}")) == wanted
        )

    def _servers(self) -> dict[str, psutil.Process]:
        return {name: psutil.Process(server.pid) for name, server in self._stack.servers.items()}

    def _sample(self, processes: list["subprocess.Popen[bytes]"]) -> None:
        # Rarely: the kernel has to walk the pages of a process, which takes time from the contestants.
        if time.monotonic() < self._next_sample:
            return
        self._next_sample = time.monotonic() + _SAMPLE_SECONDS
        together = 0.0
        for root in processes:
            try:
                tree = [psutil.Process(root.pid), *psutil.Process(root.pid).children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            for process in tree:
                try:
                    mib, name = usage.pss_mib(process.pid), usage.role(process)
                    self._cpu[process.pid] = (name, max(usage.cpu(process), self._cpu.get(process.pid, ("", 0.0))[1]))
                except (psutil.Error, OSError):
                    continue
                together += mib
                self._peak[process.pid] = (name, max(mib, self._peak.get(process.pid, ("", 0.0))[1]))
        self._together = max(self._together, together)

    def _lines(self, event: str) -> list[dict[str, Any]]:
        with Path(self._log.name).open("rb") as log:
            log.seek(self._read)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        self._parsed += [orjson.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
        return [line for line in self._parsed if line["event"] == event]

    def _sql(self, statement: str) -> list[tuple[object, ...]]:
        connection = psycopg2.connect(self._stack.variables["DATABASE_URL"])
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
        connection.close()
        return rows


if __name__ == "__main__":
    main()
