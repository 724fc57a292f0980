"""Everything in kube/, read once: the manifests, their pods, and the patches of the kustomizations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tasks.config.version import version
from tests.programs import ROOT

KUBE = ROOT / "kube"
OURS = f"message-backend:{version()}"
FILES = sorted(path for path in KUBE.rglob("*.yaml") if path.name != "kustomization.yaml" and not path.is_symlink())
KUSTOMIZATIONS = sorted(KUBE.rglob("kustomization.yaml"))

Manifest = dict[str, Any]


def read(path: Path) -> list[Manifest]:
    """The manifests of a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def manifests(*kinds: str) -> Iterator[Manifest]:
    """All of these kinds, or of all; what a kustomization patches is as it was before."""
    return (one for path in FILES for one in read(path) if not kinds or one["kind"] in kinds)


def named(kind: str, name: str, file: str) -> Manifest:
    """One manifest of a file."""
    return next(one for one in read(KUBE / file) if (one["kind"], one["metadata"]["name"]) == (kind, name))


def workloads() -> Iterator[tuple[Manifest, Manifest]]:
    """Each manifest that starts pods, and its pods' template."""
    for one in manifests("Job", "Deployment", "StatefulSet", "CronJob"):
        run = one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one["spec"]
        yield one, run["template"]


def containers() -> list[Manifest]:
    """The containers of all pods."""
    return [one for _, template in workloads() for one in template["spec"]["containers"]]


def ours() -> list[Manifest]:
    """The containers that run this project's image."""
    return [one for one in containers() if one["image"].startswith("message-backend")]


def literal(container: Manifest) -> dict[str, str]:
    """The variables that a container is given by value."""
    return {one["name"]: one["value"] for one in container.get("env", ()) if "value" in one}


def patches(kustomization: Path) -> list[Any]:
    """Its patches: lists of operations, and parts of manifests."""
    told = yaml.safe_load(kustomization.read_text()).get("patches", ())
    return [
        yaml.safe_load(one["patch"] if "patch" in one else (kustomization.parent / one["path"]).read_text())
        for one in told
    ]


def operations() -> list[Manifest]:
    """The operations of all JSON patches."""
    return [step for path in KUSTOMIZATIONS for patch in patches(path) if isinstance(patch, list) for step in patch]
