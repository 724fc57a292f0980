"""The liveness probe of a consumer pod, `ps aux | grep '[c]onsume'`, sees the bridge and nothing else."""

import subprocess
from pathlib import Path

from tasks.settings import child_environment
from tests.waiting import wait_until
from tests.world import ABSENT, World


def test_only_the_bridge_shows_consume_in_its_command_line(ready: World) -> None:
    pod = ready.consume(redis_url=ABSENT)
    family = {str(process.pid) for process in pod.family()}
    # Not the test runner's COLUMNS: ps would cut its lines there.
    probe = subprocess.run(
        ["env", "-u", "COLUMNS", "sh", "-c", "ps aux | grep '[c]onsume'"], capture_output=True, text=True
    )
    ours = [line for line in probe.stdout.splitlines() if line.split()[1] in family]
    assert len(ours) == 1, probe.stdout
    assert "--only bridge" in ours[0]
    assert "valkey-server" in " ".join(" ".join(process.cmdline()) for process in pod.family())


def test_a_program_that_cannot_start_ends_the_pod(ready: World, tmp_path: Path) -> None:
    broken = tmp_path / "valkey-server"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    path = f"{tmp_path}:{child_environment({})['PATH']}"
    pod = ready.start("consume", redis_url=ABSENT, path=path)
    wait_until(lambda: pod.process.poll() is not None, "the pod has ended", 60)
