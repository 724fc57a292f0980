"""A small kubelet: runs a manifest's pods as podman containers, with their limits, probes, preStop and grace periods.

It does what the kubelet does with one container a pod (Kubernetes documentation, "Pod Lifecycle"). It does not know
several replicas, init containers, NetworkPolicies, nor autoscalers.
"""

import contextlib
import json
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

IMAGE = "localhost/backend:verify"
NETWORK = "backend-verify"
_SUBNET, GATEWAY = "10.89.77.0/24", "10.89.77.1"
_UNITS = {None: 1.0, "m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
_LOOK_SECONDS = 0.25


def podman(*arguments: str, seconds: float = 120) -> str:
    """What podman prints; fails with what it complains of."""
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


@contextlib.contextmanager
def network() -> Iterator[str]:
    """A network whose gateway, this machine, has an address at once; the address. Only while a container runs."""
    podman("network", "rm", "-f", NETWORK)
    podman("network", "create", "--subnet", _SUBNET, NETWORK)
    podman("run", "-d", "--name", "verify-pause", "--network", NETWORK, "--entrypoint", "sleep", IMAGE, "infinity")
    try:
        yield GATEWAY
    finally:
        podman("network", "rm", "-f", "-t", "0", NETWORK)


def quantity(text: object) -> float:
    """A Kubernetes quantity, as 200m or 512Mi, as a number."""
    found = re.fullmatch(r"([0-9.]+)(m|Ki|Mi|Gi)?", str(text))
    if found is None:
        raise ValueError(f"no quantity: {text}")
    return float(found[1]) * _UNITS[found[2]]


class Pod:
    """One container, as its pod's `spec` asks for, with the variables of `given` where it names ConfigMaps or Secrets.

    `hosts` are names that lead to this machine's servers.
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
        self.peak_mib = 0.0  # page cache included, as the limit counts it
        self.killed_for_memory = 0
        self._spec, self._hosts, self._given, self._node_port = spec, hosts, given, node_port
        self._ending = threading.Event()
        self._ended_at: float | None = None

    def run(self) -> tuple[int, str]:
        """Run it to its end, as a Job does; its exit code and what it wrote."""
        self._begin()
        while self._runs():
            self._measure()
            self._ending.wait(0.05)
        self.ended_after = self.age()
        return int(self._inspect("{{.State.ExitCode}}")), self.logs()

    def start(self) -> None:
        """Start it, and look after it as a kubelet does until it is stopped."""
        self._begin()
        threading.Thread(target=self._look_after, daemon=True).start()

    def stop(self) -> tuple[int, float]:
        """End it as the kubelet does: no requests any more, preStop, SIGTERM, SIGKILL. Exit code and seconds."""
        self._ended_at = begin = time.monotonic()
        self._ending.set()
        hook = self.container.get("lifecycle", {}).get("preStop", {}).get("exec")
        if hook is not None:
            podman("exec", self.name, *hook["command"], seconds=self.grace_seconds)
        left = max(1, int(self.grace_seconds - (time.monotonic() - begin)))
        podman("stop", "-t", str(left), self.name, seconds=left + 20)
        return int(self._inspect("{{.State.ExitCode}}")), time.monotonic() - begin

    def remove(self) -> None:
        """End and forget it, whatever it does."""
        self._ending.set()
        podman("rm", "-f", "-i", "-t", "1", self.name)

    def serves(self, propagation_seconds: float) -> bool:
        """Whether a Service leads to it: ready, or leaving for less time than nodes need to hear of it."""
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
        """Its peak and its limit, to be printed."""
        return f"at most {self.peak_mib:.0f} MiB of {self.limit_mib:.0f}"

    def execute(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command inside."""
        return subprocess.run(["podman", "exec", self.name, *command], capture_output=True, text=True, timeout=30)

    def logs(self) -> str:
        """All it wrote."""
        done = subprocess.run(["podman", "logs", self.name], capture_output=True, text=True)
        return done.stdout + done.stderr

    def _begin(self) -> None:
        podman("run", "-d", "--replace", *self._arguments())
        self._began()

    def _began(self) -> None:
        self._started_at = time.monotonic()
        self.address = self._inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
        self._process = Path("/proc", self._inspect("{{.State.Pid}}"))
        self._group = self._inspect("{{.State.CgroupPath}}").lstrip("/")

    def _runs(self) -> bool:
        return self._process.name != "0" and self._process.exists()

    def _measure(self) -> None:
        for peak, events in (
            (f"/sys/fs/cgroup/memory/{self._group}/memory.max_usage_in_bytes", "memory.oom_control"),
            (f"/sys/fs/cgroup/{self._group}/memory.peak", "memory.events"),
        ):
            with contextlib.suppress(FileNotFoundError):  # control groups of the other version; or it has ended
                self.peak_mib = max(self.peak_mib, int(Path(peak).read_text()) / 2**20)
                counts = dict(line.split() for line in (Path(peak).parent / events).read_text().splitlines())
                self.killed_for_memory = max(self.killed_for_memory, int(counts["oom_kill"]))

    def _inspect(self, template: str) -> str:
        return podman("inspect", "-f", template, self.name)

    def _arguments(self) -> list[str]:
        container, pod = self.container, self._spec.get("securityContext", {})
        own = container.get("securityContext", {})
        limits = container["resources"]["limits"]
        memory = str(int(quantity(limits["memory"])))
        made = ["--name", self.name, "--network", NETWORK, "--pull=never"]
        made += ["--memory", memory, "--memory-swap", memory, "--cpus", str(quantity(limits["cpu"]))]
        made += [word for host in self._hosts for word in ("--add-host", f"{host}:{GATEWAY}")]
        variables = dict(self._given) if "envFrom" in container else {}
        variables |= {one["name"]: one["value"] for one in container.get("env", [])}
        made += [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
        if self._node_port is not None:
            made += ["-p", f"127.0.0.1:{self._node_port}:{container['ports'][0]['containerPort']}"]
        if "runAsUser" in pod:
            made += ["--user", f"{pod['runAsUser']}:{pod.get('runAsGroup', pod['runAsUser'])}"]
        if own.get("readOnlyRootFilesystem"):
            made += ["--read-only", "--read-only-tmpfs=false"]
        made += [word for drop in own.get("capabilities", {}).get("drop", []) for word in ("--cap-drop", drop)]
        if own.get("allowPrivilegeEscalation") is False:
            made += ["--security-opt", "no-new-privileges"]
        volumes = {volume["name"]: volume for volume in self._spec.get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            if "emptyDir" not in volumes[mount["name"]]:
                raise NotImplementedError(f"{self.name}: volume {mount['name']}")
            made += ["--tmpfs", f"{mount['mountPath']}:rw,mode=1777"]
        if "command" in container:
            made += ["--entrypoint", json.dumps(container["command"])]
        return [*made, IMAGE, *container.get("args", [])]

    def _look_after(self) -> None:
        due: dict[str, float] = {}
        failures: dict[str, int] = {}
        started = "startupProbe" not in self.container
        while not self._ending.wait(_LOOK_SECONDS):
            self._measure()
            if not self._runs():
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
        # A startup probe is there to fail until it does not.
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
        podman("restart", "-t", str(self.grace_seconds), self.name, seconds=self.grace_seconds + 30)
        self._began()

    def _probe(self, probe: Mapping[str, Any]) -> str:
        """What is wrong, or nothing."""
        seconds = float(probe.get("timeoutSeconds", 1))
        if "exec" in probe:
            try:
                # The time that podman itself takes is not the probe's.
                done = subprocess.run(
                    ["podman", "exec", self.name, *probe["exec"]["command"]], capture_output=True, timeout=seconds + 2
                )
            except subprocess.TimeoutExpired:
                return "timeout"
            return "" if done.returncode == 0 else f"exit code {done.returncode}"
        get = probe["httpGet"]
        try:
            with urllib.request.urlopen(f"http://{self.address}:{get['port']}{get['path']}", timeout=seconds):
                return ""
        except OSError as error:
            return str(error)
