"""The number of CPU cores that this process may use, within the limits of its container."""

import math
import os
from pathlib import Path

_CONTROL_GROUP = Path("/sys/fs/cgroup")


def cores(control_group: Path = _CONTROL_GROUP) -> int:
    """Whole cores, at least 1: a pod with a limit of 200m on a node with 64 cores has 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _limit(control_group)
    return allowed if limit is None else max(1, min(allowed, math.ceil(limit)))


def _limit(control_group: Path) -> float | None:
    """The CPU quota of our control group, in cores (kernel documentation, cgroup-v2 "cpu.max", v1 sched-bwc)."""
    try:
        if (control_group / "cpu.max").exists():
            quota, period = (control_group / "cpu.max").read_text().split()
        else:
            quota, period = ((control_group / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if quota.strip() in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None
