"""The Kubernetes manifests: valid by the published schemas, locked down, of one mind with us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import Tool
from tests.support.containers import (
    ROOT,
    celery_settings,
    check_command,
    check_environment,
)

DIRECTORY = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((DIRECTORY / "kustomization.yaml").read_text())
VERSIONS = ("1.30", "1.37")
"""Of Kubernetes: the oldest and the newest that the manifests are held to."""


def _objects() -> list[dict[str, Any]]:
    texts = [(DIRECTORY / name).read_text() for name in KUSTOMIZATION["resources"]]
    return [found for text in texts for found in yaml.safe_load_all(text)]


OBJECTS = {(found["kind"], found["metadata"]["name"]): found for found in _objects()}
SETTINGS = OBJECTS["ConfigMap", "reconciler"]["data"]
PODS = {
    name.removeprefix("reconciler-"): found["spec"]["template"]
    for (kind, name), found in OBJECTS.items()
    if kind == "Deployment"
}


def container(name: str) -> dict[str, Any]:
    (found,) = PODS[name]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [found for (its, _), found in OBJECTS.items() if its == kind]


def test_the_kustomization_names_every_file_and_only_those() -> None:
    files = {path.name for path in DIRECTORY.glob("*.yaml")} - {"kustomization.yaml"}
    assert sorted(KUSTOMIZATION["resources"]) == sorted(files)
    assert len(OBJECTS) == len(_objects())
    (image,) = KUSTOMIZATION["images"]
    assert image["newTag"] not in {"", "latest"}
    assert {container(name)["image"] for name in PODS} == {image["name"]}


@pytest.mark.parametrize("version", VERSIONS)
def test_they_hold_to_the_published_schemas(tool: Tool, version: str) -> None:
    files = [str(DIRECTORY / name) for name in KUSTOMIZATION["resources"]]
    done = tool("kubernetes-validate", "--strict", "-k", version, *files)
    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0, said
    assert len([line for line in said if line.startswith("INFO")]) == len(OBJECTS)


def test_the_schemas_would_find_something(tool: Tool, tmp_path: Path) -> None:
    broken = tmp_path / "worker.yaml"
    text = (DIRECTORY / "worker.yaml").read_text()
    broken.write_text(text.replace("terminationGracePeriodSeconds", "terminationGraceSeconds"))
    done = tool("kubernetes-validate", "--strict", str(broken))
    assert done.returncode != 0
    assert "terminationGraceSeconds" in done.stdout + done.stderr


@pytest.mark.parametrize("name", PODS)
def test_settings_and_commands_are_known(name: str) -> None:
    found = container(name)
    own = {entry["name"]: entry.get("value", "u:p") for entry in found.get("env", ())}
    check_environment({**SETTINGS, **own, "BROKER_PASSWORD": "from a secret"})
    check_command(found["command"])
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if "exec" in found.get(probe, {}):
            check_command(found[probe]["exec"]["command"])
    assert found["envFrom"] == [
        {"configMapRef": {"name": "reconciler"}},
        {"secretRef": {"name": "reconciler-broker"}},
    ]


def test_no_secret_is_in_them() -> None:
    assert not of_kind("Secret")
    assert not {name for name in SETTINGS if "PASSWORD" in name or "AUTH" in name}
    assert ":" not in SETTINGS["CELERY_BROKER_URL"].partition("@")[0].removeprefix("rediss://")
    (login,) = [e for e in container("flower")["env"] if e["name"] == "FLOWER_BASIC_AUTH"]
    assert login["valueFrom"] == {"secretKeyRef": {"name": "reconciler-flower", "key": "login"}}


@pytest.mark.parametrize("name", ["CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"])
def test_the_broker_is_spoken_to_by_tls(name: str) -> None:
    assert SETTINGS[name].startswith("rediss://")
    assert "none" not in SETTINGS[name]


@pytest.mark.parametrize("name", PODS)
def test_a_pod_may_not_change_anything(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert container(name)["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    resources = container(name)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert "memory" in resources["limits"]
    (namespace,) = of_kind("Namespace")
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", PODS)
def test_it_stops_in_time_and_is_started_again_when_it_hangs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    celery = celery_settings(monkeypatch, SETTINGS)
    grace = PODS[name]["spec"]["terminationGracePeriodSeconds"]
    assert max(celery["task_time_limit"], 89) < grace
    assert grace < celery["broker_transport_options"]["visibility_timeout"]
    assert "livenessProbe" in container(name)
    if name in {"worker", "beat"}:
        probe = container(name)["startupProbe"]
        patience = probe["periodSeconds"] * probe["failureThreshold"]
        assert patience > 2 * int(SETTINGS["SWEEP_INTERVAL_SECONDS"])


def test_roles_are_taken_by_workers_and_beats_only() -> None:
    roles = {
        found["metadata"]["name"]: found["metadata"].get("annotations", {})
        for found in of_kind("ServiceAccount")
    }
    used = {name: PODS[name]["spec"]["serviceAccountName"] for name in PODS}
    assert used == {
        "worker": "reconciler-worker",
        "beat": "reconciler-beat",
        "flower": "reconciler-watcher",
        "exporter": "reconciler-watcher",
    }
    with_role = {name for name, found in roles.items() if "eks.amazonaws.com/role-arn" in found}
    assert with_role == {"reconciler-worker", "reconciler-beat"}
    assert set(used.values()) == set(roles)


def test_one_is_always_left() -> None:
    budgets = {found["metadata"]["name"]: found["spec"] for found in of_kind("PodDisruptionBudget")}
    assert set(budgets) == {"reconciler-worker", "reconciler-beat"}
    for name, spec in budgets.items():
        deployment = OBJECTS["Deployment", name]["spec"]
        assert 0 < spec["minAvailable"] < deployment["replicas"]
        assert spec["selector"] == deployment["selector"]


def test_selectors_find_their_pods() -> None:
    for deployment in of_kind("Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for service in of_kind("Service"):
        (name,) = service["spec"]["selector"].values()
        (port,) = service["spec"]["ports"]
        (own,) = container(name)["ports"]
        assert port["targetPort"] == own["name"]
        assert port["port"] == own["containerPort"]
        assert f"--port={own['containerPort']}" in container(name)["command"]


def test_the_network_is_closed_but_for_what_is_named() -> None:
    policies = {found["metadata"]["name"]: found["spec"] for found in of_kind("NetworkPolicy")}
    everything = policies["reconciler"]
    assert everything["podSelector"] == {}
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everything
    ports = {port["port"] for rule in everything["egress"] for port in rule["ports"]}
    assert ports == {53, 443, 6379}
    (rule,) = policies["reconciler-watched"]["ingress"]
    (source,) = rule["from"]
    assert source["namespaceSelector"]["matchLabels"]
    (watched,) = policies["reconciler-watched"]["podSelector"]["matchExpressions"]
    assert set(watched["values"]) == {service["metadata"]["name"].removeprefix("reconciler-")
                                      for service in of_kind("Service")}  # fmt: skip
