"""The liveness probe of a pod, `ps aux | grep '[c]onsume'`, sees the bridge; what does not heal ends the pod."""

import contextlib
import subprocess
from pathlib import Path

import psutil

from tasks.config.environment import child_environment
from tests.programs import ABSENT
from tests.waiting import wait_until
from tests.world import World


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
    assert [line["program"] for line in pod.lines("pod.failed")] == ["redis"]


def test_a_program_that_crashes_again_and_again_ends_the_pod(ready: World) -> None:
    pod = ready.consume(redis_url=ABSENT)
    killed = set()
    while pod.process.poll() is None:
        with contextlib.suppress(StopIteration, psutil.NoSuchProcess):
            bridge = pod.child("--only bridge")
            bridge.kill()
            killed.add(bridge.pid)
    assert len(killed) >= 5
    assert [line["program"] for line in pod.lines("pod.failed")] == ["bridge"]


def test_every_line_of_a_pod_is_json(ready: World) -> None:
    pod = ready.consume(redis_url=ABSENT)
    pod.child("valkey-server").kill()
    wait_until(lambda: pod.lines("program.exited"), "the listener says that it exited")
    pod.stop()
    assert {line["process"] for line in pod.lines()} == {"bridge", "worker", "listener"}
    assert len(pod.lines()) == len(pod.log.read_bytes().splitlines())
