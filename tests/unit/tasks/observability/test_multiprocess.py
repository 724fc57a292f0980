"""Processes that come and go share a directory: no count is lost, files do not pile up, gauges of the dead go."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.observability import metrics, multiprocess
from tests.programs import ROOT
from tests.waiting import wait_until

COUNT = """
import os, sys
from tasks.observability import metrics
metrics.join(sys.argv[1], "1")
metrics.CONSUMED.add(3, "orders")
metrics.IN_FLIGHT.set(5)
print("counted", flush=True)
sys.stdin.read()
os.kill(os.getpid(), 9)
"""


def start(directory: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", COUNT, str(directory)]
    made = subprocess.Popen(
        command, env={"PROMETHEUS_MULTIPROC_DIR": str(directory)}, cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert made.stdout is not None and made.stdout.readline() == "counted\n"
    return made


def shown(directory: Path) -> dict[str, float]:
    text = metrics.exposition(str(directory), "")[0].decode()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def test_what_killed_processes_counted_stays_and_their_gauges_go(tmp_path: Path) -> None:
    for _ in range(4):
        start(tmp_path).communicate()
    one, other = start(tmp_path), start(tmp_path)
    seen = shown(tmp_path)
    assert seen['backend_records_consumed_total{topic="orders"}'] == 18
    assert seen["backend_in_flight_batches"] == 10
    assert len(list(tmp_path.glob("counter_*.db"))) == 2
    one.communicate()
    wait_until(lambda: shown(tmp_path)["backend_in_flight_batches"] == 5, "one process is left")
    other.communicate()
    assert "backend_in_flight_batches" not in shown(tmp_path)
    assert shown(tmp_path)['backend_records_consumed_total{topic="orders"}'] == 18


def test_a_scrape_while_a_process_takes_its_slot_finds_no_empty_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = os.posix_fallocate
    scrapes = []

    def scrape_first(file: int, offset: int, length: int) -> None:
        scrapes.append(metrics.exposition(str(tmp_path), ""))
        reserve(file, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", scrape_first)
    multiprocess.take(tmp_path)
    assert len(scrapes) == 3
