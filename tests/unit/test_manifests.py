"""The manifests agree with the commands, the settings and each other, and keep the shape that people deploy."""

from pathlib import Path

import certifi
import pytest
import yaml
from honcho.environ import parse_procfile

from bootstrap import cli
from bootstrap.commands import local
from bootstrap.pod.supervisor import programs
from tasks.config import catalogue, settings
from tasks.config.setting import COMMANDS, flag
from tests.manifests import (
    KUBE,
    KUSTOMIZATIONS,
    OURS,
    Manifest,
    containers,
    literal,
    manifests,
    named,
    operations,
    ours,
    patches,
    read,
    workloads,
)
from tests.programs import ROOT

NAMES = {row.name for row in catalogue.settings()}
LARGE = {"requests": {"memory": "256Mi", "cpu": "100m"}, "limits": {"memory": "512Mi", "cpu": "200m"}}
SMALL = {"requests": {"memory": "128Mi", "cpu": "100m"}, "limits": {"memory": "256Mi", "cpu": "200m"}}
LIVENESS = ["sh", "-c", "ps aux | grep '[c]onsume'"]


def arguments() -> list[list[str]]:
    """What our image is started with, in manifests and in patches of them."""
    patched = [step["value"] for step in operations() if step["path"].endswith("/args")]
    return [one["args"] for one in ours()] + patched


def configuration(overlay: str) -> dict[str, str]:
    """What the ConfigMap and the Secret of an overlay hold, as patched there; files lie where this machine has some."""
    base, own = KUBE / "base", KUBE / overlay / "kustomization.yaml"
    parts = [*read(base / "01-configuration.yaml"), *(patch for patch in patches(own) if isinstance(patch, dict))]
    held: dict[str, str] = {}
    for part in parts:
        if part["kind"] in ("ConfigMap", "Secret") and part["metadata"]["name"] == "backend":
            held |= part.get("data") or part["stringData"]
    return {name: value.replace("/etc/backend/tls/ca.crt", certifi.where()) for name, value in held.items()}


@pytest.mark.parametrize("args", arguments(), ids=" ".join)
def test_every_command_and_flag_is_accepted(args: list[str]) -> None:
    given = vars(cli.parser().parse_args(args))
    flags = {flag(row.name) for row in catalogue.settings() if args[0] in row.commands} | {"--only"}
    assert {one.partition("=")[0] for one in args if one.startswith("--")} <= flags, "argparse takes a part of a name"
    settings.load({name: value for name, value in given.items() if name in NAMES and value is not None}, {})


@pytest.mark.parametrize("overlay", ["base", "scaled", "external"])
def test_the_configuration_of_an_overlay_is_taken(overlay: str) -> None:
    held = configuration(overlay)
    assert ("REDIS_URL" in held) == (overlay != "base")
    assert {name.lower() for name in held} <= NAMES
    for one in ours():
        assert {name.lower() for name in literal(one)} <= NAMES, one["name"]
        settings.load({}, {**held, **literal(one)})


def test_the_image_is_that_of_this_version() -> None:
    assert {one["image"] for one in ours()} == {OURS}


def test_procfile_supervisord_commands_and_manifests_name_the_same() -> None:
    lines = parse_procfile((ROOT / "Procfile").read_text()).processes
    assert lines == {name: f"python -m bootstrap {name}" for name in local.PROCESSES}
    procfile = [line.split()[3:] for line in lines.values()]
    assert all(cli.parser().parse_args(command) for command in procfile)
    started = [cli.parser().parse_args(args) for args in arguments()]
    assert {one.command for one in started} == {"init", "serve", "consume", "retention"} <= set(COMMANDS)
    deployed = {one["args"][0] for one in ours_of("Deployment")}
    assert deployed == {command[0] for command in procfile} == {"serve", "consume"}
    pod = {program.name: program.command for program in programs(settings.load({}, {}), Path("/run/pod"))}
    apart = {one.only for one in started if one.command == "consume"} - {None}
    assert apart == set(pod) - {"redis"} == {"bridge", "worker"}
    assert cli.parser().parse_args(pod["bridge"].split()[3:]).only == "bridge"


def ours_of(kind: str) -> list[Manifest]:
    pods = [template["spec"]["containers"] for one, template in workloads() if one["kind"] == kind]
    return [one for some in pods for one in some if one["image"] == OURS]


def test_ports_are_those_that_the_pods_listen_on() -> None:
    defaults = {row.name: row.default for row in catalogue.settings()}
    for one in ours():
        given = cli.parser().parse_args(one["args"])
        listens = {int(given.port or defaults["port"])} if given.command == "serve" else set()
        listens |= {int(literal(one)["METRICS_PORT"])} if "METRICS_PORT" in literal(one) else set()
        assert {port["containerPort"] for port in one.get("ports", ())} == listens, one["name"]
    for one in containers():
        ports = {port["containerPort"] for port in one.get("ports", ())}
        for probe in (one[name] for name in one if name.endswith("Probe")):
            asked = probe.get("httpGet") or probe.get("tcpSocket")
            assert asked is None or asked["port"] in ports, one["name"]


def test_selectors_find_what_they_select() -> None:
    pods = [(template.get("metadata", {}).get("labels", {}), template["spec"]) for _, template in workloads()]
    for one, template in workloads():
        selectors = [spread["labelSelector"] for spread in template["spec"].get("topologySpreadConstraints", ())]
        selectors += [one["spec"]["selector"]] if "selector" in one["spec"] else []
        for selector in selectors:
            assert selector["matchLabels"].items() <= template["metadata"]["labels"].items(), one["metadata"]["name"]
    for service in manifests("Service"):
        found = [pod for labels, pod in pods if service["spec"]["selector"].items() <= labels.items()]
        ports = {port["containerPort"] for pod in found for one in pod["containers"] for port in one["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, service["metadata"]["name"]
    for one in manifests("NetworkPolicy", "PodDisruptionBudget"):
        selector = one["spec"].get("podSelector") or one["spec"].get("selector") or {}
        wanted = [selector["matchLabels"]] if "matchLabels" in selector else []
        wanted += [{rule["key"]: value} for rule in selector.get("matchExpressions", ()) for value in rule["values"]]
        for pair in wanted:
            assert any(pair.items() <= labels.items() for labels, _ in pods), (one["metadata"]["name"], pair)


def test_kustomizations_name_files_that_exist_and_forget_none() -> None:
    for path in KUSTOMIZATIONS:
        told = yaml.safe_load(path.read_text())
        used = list(told.get("resources", ())) + [patch["path"] for patch in told.get("patches", ()) if "path" in patch]
        for name in used:
            target = (path.parent / name).resolve()
            assert target.is_relative_to(KUBE) and (target.is_file() or (target / "kustomization.yaml").exists()), name
            assert not path.resolve().is_relative_to(target), f"{path} builds on itself"
        files = {file for made in told.get("configMapGenerator", ()) for file in made["files"]}
        beside = {file.name for file in path.parent.iterdir()} - {"kustomization.yaml"}
        assert beside == {name for name in used if "/" not in name} | files, path


def test_every_pod_is_allowed_where_pod_security_is_restricted() -> None:
    for one, template in workloads():
        name, pod = one["metadata"]["name"], template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        kinds = {kind for volume in pod.get("volumes", ()) for kind in volume} - {"name"}
        assert kinds <= {"emptyDir", "configMap", "secret"}, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"], name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"], name
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, name


def test_our_pods_may_take_as_long_to_end_as_they_need() -> None:
    drains = sum(program.stop_seconds for program in programs(settings.load({}, {}), Path("/run/pod")))
    for one, template in workloads():
        if one["kind"] == "Deployment" and template["spec"]["containers"][0]["image"] == OURS:
            assert template["spec"]["terminationGracePeriodSeconds"] == 40 > drains


def test_the_password_of_the_database_is_said_twice_the_same() -> None:
    secrets = {one["metadata"]["name"]: one["stringData"] for one in read(KUBE / "base" / "01-configuration.yaml")[1:]}
    user, password, name = (secrets["postgresql"][f"POSTGRES_{part}"] for part in ("USER", "PASSWORD", "DB"))
    assert secrets["backend"]["DATABASE_URL"] == f"postgresql://{user}:{password}@postgresql:5432/{name}"


def test_the_manifest_that_people_have_keeps_its_shape() -> None:
    """The numbers are those of the manifest that people deployed before; only its image was replaced."""
    assert [(one["kind"], one["metadata"]["name"]) for one in read(KUBE / "04-backend.yaml")] == [
        ("Job", "init-job"),
        ("Service", "backend"),
        ("Deployment", "backend"),
        ("Deployment", "consumer"),
    ]
    service = named("Service", "backend", "04-backend.yaml")["spec"]
    assert (service["type"], service["selector"]) == ("NodePort", {"app": "backend"})
    assert service["ports"] == [{"port": 8080, "targetPort": 8080, "nodePort": 30080}]
    assert named("Job", "init-job", "04-backend.yaml")["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"
    init, serve, consume = map(alone, ("Job", "Deployment", "Deployment"), ("init-job", "backend", "consumer"))
    assert [one["args"][0] for one in (init, serve, consume)] == ["init", "serve", "consume"]
    assert (init["resources"], serve["resources"], consume["resources"]) == (SMALL, LARGE, LARGE)
    environment = {"APP_ENV": "production", "LOG_LEVEL": "info"}
    assert (literal(init), literal(serve)) == (environment, {**environment, "LOG_FORMAT": "json"})
    assert literal(serve).items() <= literal(consume).items()
    assert not any("envFrom" in one for one in (init, serve, consume)), "it must not need another file"
    assert pace(serve["readinessProbe"]) == (15, 30) and pace(serve["livenessProbe"]) == (30, 60)
    assert serve["readinessProbe"]["httpGet"] == serve["livenessProbe"]["httpGet"] == {"path": "/health", "port": 8080}
    assert consume["livenessProbe"]["exec"]["command"] == LIVENESS and pace(consume["livenessProbe"]) == (30, 60)


def alone(kind: str, name: str) -> Manifest:
    """The one container of the one pod."""
    found = named(kind, name, "04-backend.yaml")["spec"]
    assert found.get("replicas", 1) == 1
    (container,) = found["template"]["spec"]["containers"]
    return dict(container)


def pace(probe: Manifest) -> tuple[int, int]:
    return probe["initialDelaySeconds"], probe["periodSeconds"]
