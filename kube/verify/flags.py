"""A pod's spec as arguments of podman."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kube.verify.engine import GATEWAY, NETWORK

_UNITS = {None: 1.0, "m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


def quantity(text: object) -> float:
    """A Kubernetes quantity, such as 200m or 512Mi, as a number."""
    found = re.fullmatch(r"([0-9.]+)(m|Ki|Mi|Gi)?", str(text))
    if found is None:
        raise ValueError(f"no quantity: {text}")
    return float(found[1]) * _UNITS[found[2]]


def flags(
    name: str, spec: Mapping[str, Any], hosts: Sequence[str], given: Mapping[str, str], node_port: int | None
) -> list[str]:
    """The arguments of `podman create`; see Pod. Raises NotImplementedError for volumes other than emptyDir."""
    container, pod = spec["containers"][0], spec.get("securityContext", {})
    own = container.get("securityContext", {})
    limits = container["resources"]["limits"]
    memory = str(int(quantity(limits["memory"])))
    made = ["--name", name, "--network", NETWORK, "--pull=never"]
    made += ["--memory", memory, "--memory-swap", memory, "--cpus", str(quantity(limits["cpu"]))]
    made += [word for host in hosts for word in ("--add-host", f"{host}:{GATEWAY}")]
    variables = dict(given) if "envFrom" in container else {}
    variables |= {one["name"]: one["value"] for one in container.get("env", [])}
    made += [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    if node_port is not None:
        made += ["-p", f"127.0.0.1:{node_port}:{container['ports'][0]['containerPort']}"]
    if "runAsUser" in pod:
        made += ["--user", f"{pod['runAsUser']}:{pod.get('runAsGroup', pod['runAsUser'])}"]
    if own.get("readOnlyRootFilesystem"):
        made += ["--read-only", "--read-only-tmpfs=false"]
    made += [word for drop in own.get("capabilities", {}).get("drop", []) for word in ("--cap-drop", drop)]
    if own.get("allowPrivilegeEscalation") is False:
        made += ["--security-opt", "no-new-privileges"]
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        if "emptyDir" not in volumes[mount["name"]]:
            raise NotImplementedError(f"{name}: volume {mount['name']}")
        made += ["--tmpfs", f"{mount['mountPath']}:rw,mode=1777"]
    if "command" in container:
        made += ["--entrypoint", json.dumps(container["command"])]
    return [*made, f"localhost/{container['image']}", *container.get("args", [])]
