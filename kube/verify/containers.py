"""A small kubelet: runs a manifest's pods as podman containers, with their limits, probes, preStop and grace periods.

It does what the kubelet does for pods with one container (Kubernetes documentation, "Pod Lifecycle"). It does not
implement replicas, init containers, NetworkPolicies or autoscalers.
"""

import contextlib
import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kube.verify import engine
from kube.verify.engine import podman
from kube.verify.flags import flags, quantity
from tests.waiting import wait_until

_LOOK_SECONDS = 0.25
_LOG_SECONDS = 120


class Pod:
    """A container for a pod's `spec`, with the variables of `given` for its ConfigMaps and Secrets.

    `hosts` are names of this machine's servers.
    """

    def __init__(
        self,
        name: str,
        spec: Mapping[str, Any],
        hosts: Sequence[str],
        given: Mapping[str, str],
        node_port: int | None = None,
    ) -> None:
        self.name = name
        self.container: Mapping[str, Any] = spec["containers"][0]
        self.grace_seconds = int(spec.get("terminationGracePeriodSeconds", 30))
        self.ready = "readinessProbe" not in self.container
        self.started_after = self.ready_after = self.ended_after = 0.0  # seconds from its start
        self.failed_probes: list[str] = []
        self.restarts = 0
        self.limit_mib = quantity(self.container["resources"]["limits"]["memory"]) / 2**20
        self.peak_mib = 0.0  # with the page cache, as the limit counts it
        self.killed_for_memory = 0
        self._spec, self._hosts, self._given, self._node_port = spec, hosts, given, node_port
        self._ending = threading.Event()
        self._ended_at: float | None = None
        self._keeper = threading.Thread(target=self._look_after, daemon=True)

    def run(self) -> tuple[int, str]:
        """Run it to its end, as a Job does; returns its exit code and output."""
        self._begin()
        while self._runs():
            self._measure()
            self._ending.wait(0.05)
        self.ended_after = self.age()
        return int(podman("wait", self.name)), self.logs()

    def start(self) -> None:
        """Start it, and run its probes as a kubelet does until it is stopped."""
        self._begin()
        self._keeper.start()

    def stop(self) -> tuple[int, float]:
        """Stop it as the kubelet does: no more requests, preStop, SIGTERM, SIGKILL. Returns exit code and seconds."""
        self._ending.set()
        hook = self.container.get("lifecycle", {}).get("preStop", {}).get("exec")
        with engine.running(self.name, *hook["command"]) if hook else contextlib.nullcontext():
            self._ended_at = begin = time.monotonic()
        self._signal(signal.SIGTERM)
        while self._runs() and time.monotonic() - begin < self.grace_seconds:
            time.sleep(0.05)
        seconds = time.monotonic() - begin
        if self._runs():
            self._signal(signal.SIGKILL)
        return int(podman("wait", self.name)), seconds

    def remove(self) -> None:
        """Kill and remove it."""
        self._ending.set()
        if self._keeper.is_alive():  # a probe may be running
            self._keeper.join()
        engine.remove(self.name)

    def serves(self, propagation_seconds: float) -> bool:
        """Whether a Service routes to it: it is ready, or ending for less time than nodes need to notice."""
        if self._ended_at is not None:
            return time.monotonic() - self._ended_at < propagation_seconds
        return self.ready

    def age(self) -> float:
        """Seconds since its last start."""
        return time.monotonic() - self._started_at

    def started(self) -> bool:
        """Whether its startup probe has passed."""
        return self.started_after > 0

    def memory(self) -> str:
        """Its peak and its limit, as text."""
        return f"at most {self.peak_mib:.0f} MiB of {self.limit_mib:.0f}"

    def passes(self, kind: str) -> bool:
        """Whether it passes this probe now."""
        return not self._probe(self.container[kind])

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop only its first process, inside the context."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def execute(self, *command: str) -> str:
        """The output of a command in the container, whatever its exit code."""
        return engine.execute(self.name, *command).stdout

    def logs(self) -> str:
        """Its whole output."""
        return engine.logs(self.name)

    def seconds_until(self, event: str) -> float:
        """Seconds from its start to its first log line of `event`, by the log's own clock; waits for it."""
        line = wait_until(lambda: self._line(event), f"{self.name} logs {event}", _LOG_SECONDS)
        started = int(self._inspect("{{.State.StartedAt.UnixNano}}")) / 1e9
        return datetime.fromisoformat(line["time"]).timestamp() - started

    def _line(self, event: str) -> dict[str, Any]:
        lines = [line for line in self.logs().splitlines() if f'"{event}"' in line and line.endswith("}")]
        return dict(json.loads(lines[0])) if lines else {}

    def _begin(self) -> None:
        # In three steps, so that measuring starts before a short-lived container.
        engine.remove(self.name)
        podman("create", *flags(self.name, self._spec, self._hosts, self._given, self._node_port))
        podman("init", self.name)
        self._find()
        groups = dict(line.split(":", 2)[1:] for line in (self._process / "cgroup").read_text().splitlines())
        self._group = (groups.get("memory") or groups[""]).lstrip("/")
        podman("start", self.name)
        self._started_at = time.monotonic()

    def _find(self) -> None:
        addresses = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        process, _, self.address = self._inspect("{{.State.Pid}} " + addresses).partition(" ")
        self._process = Path("/proc", process)

    def _signal(self, number: int) -> None:
        # Not by podman, whose own time would count for the pod.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(self._process.name), number)

    def _runs(self) -> bool:
        return self._process.name != "0" and self._process.exists()

    def _measure(self) -> None:
        for peak, events in (
            (f"/sys/fs/cgroup/memory/{self._group}/memory.max_usage_in_bytes", "memory.oom_control"),
            (f"/sys/fs/cgroup/{self._group}/memory.peak", "memory.events"),
        ):
            with contextlib.suppress(OSError):  # the other version of control groups; or it has ended
                self.peak_mib = max(self.peak_mib, int(Path(peak).read_text()) / 2**20)
                counts = dict(line.split() for line in (Path(peak).parent / events).read_text().splitlines())
                self.killed_for_memory = max(self.killed_for_memory, int(counts["oom_kill"]))

    def _inspect(self, template: str) -> str:
        return podman("inspect", "-f", template, self.name)

    def _look_after(self) -> None:
        due: dict[str, float] = {}
        failures: dict[str, int] = {}
        started = "startupProbe" not in self.container
        while not self._ending.wait(_LOOK_SECONDS):
            self._measure()
            if not self._runs() and not self._ending.is_set():
                self._restart("it ended")
                due, failures, started = {}, {}, "startupProbe" not in self.container
                continue
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = self.container.get(kind)
                now = time.monotonic()
                waits = started if kind == "startupProbe" else not started
                if probe is None or waits or now < due.setdefault(kind, self._first(probe)):
                    continue
                due[kind] = now + probe.get("periodSeconds", 10)
                said = self._probe(probe)
                failures[kind] = 0 if not said else failures.get(kind, 0) + 1
                if kind == "startupProbe" and not said:
                    started, self.started_after = True, self.age()
                self._judge(kind, said, failures[kind], int(probe.get("failureThreshold", 3)))

    def _first(self, probe: Mapping[str, Any]) -> float:
        return self._started_at + float(probe.get("initialDelaySeconds", 0))

    def _judge(self, kind: str, said: str, failures: int, threshold: int) -> None:
        # A startup probe is expected to fail at first.
        if said and kind != "startupProbe" and not self._ending.is_set():
            self.failed_probes.append(f"{kind} after {self.age():.0f} s: {said}")
        if kind == "readinessProbe":
            if not said and not self.ready_after:
                self.ready_after = self.age()
            self.ready = not said or (self.ready and failures < threshold)
        elif failures >= threshold and not self._ending.is_set():
            self._restart(f"{kind} failed")

    def _restart(self, why: str) -> None:
        self.failed_probes.append(f"restarted: {why}")
        self.restarts += 1
        self.ready = "readinessProbe" not in self.container
        podman("restart", "-t", str(self.grace_seconds), self.name, seconds=self.grace_seconds + 120)
        self._find()
        self._started_at = time.monotonic()

    def _probe(self, probe: Mapping[str, Any]) -> str:
        """The reason of the failure; None if it passes."""
        seconds = float(probe.get("timeoutSeconds", 1))
        if "exec" in probe:
            return engine.probe(self.name, probe["exec"]["command"], seconds)
        get = probe["httpGet"]
        try:
            with urllib.request.urlopen(f"http://{self.address}:{get['port']}{get['path']}", timeout=seconds):
                return ""
        except OSError as error:
            return str(error)
