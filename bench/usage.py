"""CPU time and memory of processes, for the benchmarks."""

import re
from pathlib import Path

import psutil


def cpu(process: psutil.Process) -> float:
    """The CPU seconds of a process; 0 if it has ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:  # ended after it was listed
        return 0.0
    return float(times.user + times.system)


def pss_mib(pid: int) -> float:
    """Proportional set size: memory shared by forked processes is counted once (proc(5), smaps_rollup)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(match[1]) / 1024 if match else 0.0


def role(process: psutil.Process) -> str:
    """The part of a pod that a process is."""
    line = " ".join(process.cmdline())
    roles = {"valkey": "redis", "supervisord": "supervisord", "pod.listener": "supervisord", "--only bridge": "bridge"}
    more = {
        "-m tasks": "worker",
        "naive worker": "worker",
        "naive bridge": "bridge",
        "bench.plain": "plain",
        "bench.by_hand": "by hand",
    }
    return next((role for part, role in {**roles, **more}.items() if part in line), "other")


def server_cpu(process: psutil.Process) -> float:
    """The CPU seconds of a server, with the ended and running children of PostgreSQL."""
    if "postgres" not in process.name():
        return cpu(process)
    own = process.cpu_times()
    return float(own.user + own.system + own.children_user + own.children_system) + sum(
        cpu(child) for child in process.children(recursive=True)
    )
