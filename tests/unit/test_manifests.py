"""The manifests agree with the commands, the settings and each other, and keep the shape that people deploy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from honcho.environ import parse_procfile

from bootstrap import cli
from bootstrap.consume import programs
from tasks import settings
from tasks.settings import COMMANDS
from tasks.version import version
from tests.world import ROOT

KUBE = ROOT / "kube"
FILES = sorted(path for path in KUBE.rglob("*.yaml") if path.name != "kustomization.yaml" and not path.is_symlink())
KUSTOMIZATIONS = sorted(KUBE.rglob("kustomization.yaml"))
VARIABLES = {row.name.upper() for row in settings.table()}
LIVENESS = ["sh", "-c", "ps aux | grep '[c]onsume'"]
OURS = f"message-backend:{version()}"

Manifest = dict[str, Any]


def read(path: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def manifests(*kinds: str) -> Iterator[Manifest]:
    """All that stands below kube/, of these kinds or of all; what a kustomization patches is as it was before."""
    return (one for path in FILES for one in read(path) if not kinds or one["kind"] in kinds)


def workloads() -> Iterator[tuple[Manifest, Manifest]]:
    """Each manifest that starts pods, and the pods' template."""
    for one in manifests("Job", "Deployment", "StatefulSet", "CronJob"):
        run = one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one["spec"]
        yield one, run["template"]


def containers() -> list[Manifest]:
    return [one for _, template in workloads() for one in template["spec"]["containers"]]


def ours() -> list[Manifest]:
    return [one for one in containers() if one["image"].startswith("message-backend")]


def alone(kind: str, name: str) -> Manifest:
    """A manifest of the file that is applied by itself."""
    return next(one for one in read(KUBE / "04-backend.yaml") if (one["kind"], one["metadata"]["name"]) == (kind, name))


def patches() -> Iterator[tuple[Path, Any]]:
    """Every patch of every kustomization: a list of operations, or a part of a manifest."""
    for path in KUSTOMIZATIONS:
        for patch in yaml.safe_load(path.read_text()).get("patches", ()):
            yield (
                path,
                yaml.safe_load(patch["patch"] if "patch" in patch else (path.parent / patch["path"]).read_text()),
            )


def arguments() -> list[list[str]]:
    """What our image is started with, in manifests and in patches."""
    given = [one["args"] for one in ours()]
    steps = [step for _, patch in patches() if isinstance(patch, list) for step in patch]
    return given + [step["value"] for step in steps if step["path"].endswith("/args") and step["value"][0] in COMMANDS]


def literal(container: Manifest) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container.get("env", ()) if "value" in one}


@pytest.mark.parametrize("args", arguments(), ids=" ".join)
def test_every_command_and_flag_is_accepted(args: list[str]) -> None:
    given = vars(cli.parser().parse_args(args))
    names = {row.name for row in settings.table()}
    settings.load({name: value for name, value in given.items() if name in names and value is not None}, {})


def test_every_variable_is_a_setting_with_a_value_that_is_taken() -> None:
    told = [literal(one) for one in ours()]
    told += [one.get("data") or one["stringData"] for one in manifests("ConfigMap", "Secret") if is_ours(one)]
    assert len(told) > len(ours())
    for variables in told:
        assert set(variables) <= VARIABLES
        settings.load({}, variables)


def is_ours(manifest: Manifest) -> bool:
    return bool(manifest["metadata"]["name"] == "backend")


def test_the_image_is_that_of_this_version() -> None:
    assert {one["image"] for one in ours()} == {OURS}


def test_procfile_supervisord_commands_and_manifests_name_the_same() -> None:
    procfile = [line.split()[3:] for line in parse_procfile((ROOT / "Procfile").read_text()).processes.values()]
    assert all(cli.parser().parse_args(command) for command in procfile)
    started = {args[0] for args in arguments()}
    assert started == {"init", "serve", "consume", "retention"} <= set(COMMANDS)
    assert {command[0] for command in procfile} == {
        args[0] for args in (one["args"] for one in containers_of("Deployment")) if args[0] in COMMANDS
    }
    pod = {program.name: program.command for program in programs(settings.load({}, {}), Path("/run/pod"))}
    assert set(pod) == {"redis", "worker", "bridge"}
    assert cli.parser().parse_args(pod["bridge"].split()[3:]).only == "bridge"


def containers_of(kind: str) -> list[Manifest]:
    pods = [template["spec"]["containers"] for one, template in workloads() if one["kind"] == kind]
    return [one for containers in pods for one in containers if one["image"] == OURS]


def test_ports_are_those_that_the_pods_listen_on() -> None:
    defaults = {row.name: row.default for row in settings.table()}
    for one in ours():
        told = cli.parser().parse_args(one["args"])
        listens = {int(told.port or defaults["port"])} if told.command == "serve" else set()
        listens |= {int(literal(one)["METRICS_PORT"])} if "METRICS_PORT" in literal(one) else set()
        assert {port["containerPort"] for port in one.get("ports", ())} == listens, one["name"]
    for one in containers():
        ports = {port["containerPort"] for port in one.get("ports", ())}
        for probe in (one[name] for name in one if name.endswith("Probe")):
            asked = probe.get("httpGet") or probe.get("tcpSocket")
            assert asked is None or asked["port"] in ports, one["name"]


def test_selectors_find_what_they_select() -> None:
    pods = [template for _, template in workloads()]
    labels = [template["metadata"].get("labels", {}) for template in pods if "metadata" in template]
    for one, template in workloads():
        if "selector" in one["spec"]:
            assert one["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        for spread in template["spec"].get("topologySpreadConstraints", ()):
            assert spread["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    for service in manifests("Service"):
        found = [
            template
            for template in pods
            if service["spec"]["selector"].items() <= template.get("metadata", {}).get("labels", {}).items()
        ]
        ports = {port["containerPort"] for pod in found for one in pod["spec"]["containers"] for port in one["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, service["metadata"]["name"]
    for one in manifests("NetworkPolicy", "PodDisruptionBudget"):
        selector = one["spec"].get("podSelector") or one["spec"].get("selector") or {}
        wanted = [selector["matchLabels"]] if "matchLabels" in selector else []
        wanted += [{rule["key"]: value} for rule in selector.get("matchExpressions", ()) for value in rule["values"]]
        for pair in wanted:
            assert any(pair.items() <= have.items() for have in labels), (one["metadata"]["name"], pair)


def test_kustomizations_name_files_that_exist_and_forget_none() -> None:
    for path in KUSTOMIZATIONS:
        told = yaml.safe_load(path.read_text())
        named = list(told.get("resources", ())) + [
            patch["path"] for patch in told.get("patches", ()) if "path" in patch
        ]
        for name in named:
            target = (path.parent / name).resolve()
            assert target.is_relative_to(KUBE) and (target.is_file() or (target / "kustomization.yaml").exists()), name
            assert not path.resolve().is_relative_to(target), f"{path} builds on itself"
        beside = {file.name for file in path.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert beside <= set(named), f"{path} leaves out {beside - set(named)}"


def test_every_pod_is_allowed_where_pod_security_is_restricted() -> None:
    for one, template in workloads():
        name, pod = one["metadata"]["name"], template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert {tuple(set(volume) - {"name"}) for volume in pod.get("volumes", ())} <= {
            ("emptyDir",),
            ("configMap",),
            ("secret",),
        }
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"], name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"], name


def test_the_secret_of_the_database_is_said_twice_the_same() -> None:
    secrets = {one["metadata"]["name"]: one["stringData"] for one in read(KUBE / "base" / "01-configuration.yaml")[1:]}
    made = secrets["postgresql"]
    user, password, name = (made[f"POSTGRES_{part}"] for part in ("USER", "PASSWORD", "DB"))
    assert secrets["backend"]["DATABASE_URL"] == f"postgresql://{user}:{password}@postgresql:5432/{name}"


def test_the_manifest_that_people_have_keeps_its_shape() -> None:
    """The numbers are those of the manifest that people deployed before; only its image was replaced."""
    assert [(one["kind"], one["metadata"]["name"]) for one in read(KUBE / "04-backend.yaml")] == [
        ("Job", "init-job"),
        ("Service", "backend"),
        ("Deployment", "backend"),
        ("Deployment", "consumer"),
    ]
    service = alone("Service", "backend")["spec"]
    assert (service["type"], service["selector"]) == ("NodePort", {"app": "backend"})
    assert service["ports"] == [{"port": 8080, "targetPort": 8080, "nodePort": 30080}]
    assert alone("Job", "init-job")["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"
    large = {"requests": {"memory": "256Mi", "cpu": "100m"}, "limits": {"memory": "512Mi", "cpu": "200m"}}
    small = {"requests": {"memory": "128Mi", "cpu": "100m"}, "limits": {"memory": "256Mi", "cpu": "200m"}}
    environment = {"APP_ENV": "production", "LOG_LEVEL": "info"}
    logging = {**environment, "LOG_FORMAT": "json"}
    init, serve, consume = map(
        only_container, (("Job", "init-job"), ("Deployment", "backend"), ("Deployment", "consumer"))
    )
    assert (init["resources"], serve["resources"], consume["resources"]) == (small, large, large)
    assert (literal(init), literal(serve)) == (environment, logging)
    assert logging.items() <= literal(consume).items()
    assert [one["args"][0] for one in (init, serve, consume)] == ["init", "serve", "consume"]
    assert not any("envFrom" in one for one in (init, serve, consume)), "it must not need another file"
    assert pace(serve["readinessProbe"]) == (15, 30) and pace(serve["livenessProbe"]) == (30, 60)
    assert serve["readinessProbe"]["httpGet"] == serve["livenessProbe"]["httpGet"] == {"path": "/health", "port": 8080}
    assert consume["livenessProbe"]["exec"]["command"] == LIVENESS and pace(consume["livenessProbe"]) == (30, 60)
    assert alone("Deployment", "consumer")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 40


def only_container(of: tuple[str, str]) -> Manifest:
    found = alone(*of)["spec"]
    assert found.get("replicas", 1) == 1
    (container,) = found["template"]["spec"]["containers"]
    return dict(container)


def pace(probe: Manifest) -> tuple[int, int]:
    return probe["initialDelaySeconds"], probe["periodSeconds"]
