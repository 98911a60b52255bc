"""The rendered Kubernetes overlays are valid, locked down, and agree with the program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.observability.heartbeat import MAX_SILENCE_SECONDS
from tests.deploy.conftest import Tool
from tests.support.broker_rights import USERS, read_users, user_of
from tests.support.containers import (
    ROOT,
    celery_settings,
    check_command,
    check_environment,
)

DIRECTORY = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("development", "production")
VERSIONS = ("1.30", "1.37")
"""The oldest and the newest version of Kubernetes that the manifests are checked against."""
OF_OPERATORS = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor"}
"""Kinds for which Kubernetes itself has no schema."""
NAMES = ("worker", "beat", "flower", "exporter")
KUBECTL = Path(sys.executable).parent / "kubectl"

pytestmark = pytest.mark.skipif(
    not KUBECTL.exists() and not os.environ.get("CI"),
    reason="kubectl is not installed: `make deploy-checks` installs it",
)


@cache
def rendered(directory: Path) -> str:
    done = subprocess.run(
        [str(KUBECTL), "kustomize", str(directory)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # kustomize warns here about deprecated fields.
    assert done.stderr == ""
    return done.stdout


class Cluster:
    """The objects that an overlay creates in a cluster."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.objects = {
            (found["kind"], found["metadata"]["name"]): found for found in yaml.safe_load_all(text)
        }
        assert len(self.objects) == text.count("\nkind: ")

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        return {name: found for (its, name), found in self.objects.items() if its == kind}

    def pod(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.of_kind("Deployment")[f"reconciler-{name}"]["spec"]["template"]
        return found

    def container(self, name: str) -> dict[str, Any]:
        (found,) = self.pod(name)["spec"]["containers"]
        assert isinstance(found, dict)
        return found

    @property
    def settings(self) -> dict[str, str]:
        (found,) = self.of_kind("ConfigMap").values()
        data: dict[str, str] = found["data"]
        return data

    def containers(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield each pod's specification with each of its containers."""
        for deployment in self.of_kind("Deployment").values():
            spec = deployment["spec"]["template"]["spec"]
            for container in spec["containers"]:
                yield spec, container


def cluster(overlay: str) -> Cluster:
    return Cluster(rendered(DIRECTORY / "overlays" / overlay))


@pytest.fixture(params=OVERLAYS)
def either(request: pytest.FixtureRequest) -> Cluster:
    return cluster(request.param)


@pytest.fixture
def production() -> Cluster:
    return cluster("production")


def with_components(directory: Path, *names: str) -> Cluster:
    """Render production with additional components."""
    there = os.path.relpath(DIRECTORY, directory.resolve())
    text = {"resources": [f"{there}/overlays/production"],
            "components": [f"{there}/components/{name}" for name in names]}  # fmt: skip
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    return Cluster(rendered(directory))


def test_every_file_is_used_by_a_kustomization() -> None:
    named = {"kustomization.yaml"}
    for path in DIRECTORY.rglob("kustomization.yaml"):
        found = yaml.safe_load(path.read_text())
        named |= {Path(name).name for name in found.get("resources", ())}
        named |= {patch["path"] for patch in found.get("patches", ()) if "path" in patch}
        named |= {env for made in found.get("configMapGenerator", ()) for env in made["envs"]}
    assert {path.name for path in DIRECTORY.rglob("*") if path.is_file()} <= named


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_match_the_published_schemas(
    tool: Tool, tmp_path: Path, either: Cluster, version: str
) -> None:
    manifests = tmp_path / "rendered.yaml"
    manifests.write_text(either.text, encoding="utf-8")
    done = tool("kubernetes-validate", "--strict", "-k", version, str(manifests))
    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0, said
    assert len([line for line in said if line.startswith("INFO")]) == len(either.objects)


def test_the_schemas_reject_a_misspelled_field(
    tool: Tool, tmp_path: Path, production: Cluster
) -> None:
    broken = tmp_path / "broken.yaml"
    text = production.text.replace("terminationGracePeriodSeconds", "terminationGraceSeconds")
    broken.write_text(text, encoding="utf-8")
    done = tool("kubernetes-validate", "--strict", str(broken))
    assert done.returncode != 0
    assert "terminationGraceSeconds" in done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_settings_and_commands_exist(either: Cluster, name: str) -> None:
    found = either.container(name)
    own = {entry["name"]: entry.get("value", "u:p") for entry in found.get("env", ())}
    check_environment({**either.settings, **own})
    check_command(found["command"])
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if "exec" in found.get(probe, {}):
            check_command(found[probe]["exec"]["command"])


def test_a_changed_setting_replaces_pods(either: Cluster) -> None:
    """The name of the ConfigMap contains a hash of the settings, and every pod refers to it."""
    (name,) = either.of_kind("ConfigMap")
    assert name.startswith("reconciler-")
    for container in (either.container(each) for each in NAMES):
        assert {"configMapRef": {"name": name}} in container["envFrom"]


def test_production_contains_no_secret(production: Cluster) -> None:
    assert not production.of_kind("Secret")
    secret = ("PASSWORD", "AUTH", "SECRET", "KEY")
    assert not [name for name in production.settings if any(part in name for part in secret)]
    address = production.settings["CELERY_BROKER_URL"]
    assert "@" not in address
    for name in NAMES:
        kinds = [kind for source in production.container(name)["envFrom"] for kind in source]
        assert kinds == ["configMapRef"]
    given = {e["name"]: e["valueFrom"] for e in production.container("flower")["env"]
             if "valueFrom" in e}  # fmt: skip
    assert given["FLOWER_BASIC_AUTH"] == {
        "secretKeyRef": {"name": "reconciler-flower", "key": "login"}
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_role_logs_in_as_itself(production: Cluster, name: str) -> None:
    """It has its own user of deploy/valkey/users.acl and no other role's password."""
    env = {entry["name"]: entry for entry in production.container(name)["env"]}
    user = env["BROKER_USERNAME"]["value"]
    assert user == user_of(name)
    assert user in read_users(USERS.read_text())
    secret = {"name": "reconciler-broker", "key": name}
    assert env["BROKER_PASSWORD"]["valueFrom"] == {"secretKeyRef": secret}
    assert "@" not in production.settings["CELERY_BROKER_URL"]
    text = str(production.container(name))
    assert text.count("'reconciler-broker'") == 1


@pytest.mark.parametrize("name", ["CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"])
def test_production_reaches_the_broker_by_tls(production: Cluster, name: str) -> None:
    assert production.settings[name].startswith("rediss://")
    assert "none" not in production.settings[name]


def test_production_starts_in_report_mode(production: Cluster) -> None:
    assert check_environment(production.settings).repair_mode == "report"


def test_all_roles_share_one_image(either: Cluster) -> None:
    images = {either.container(name)["image"] for name in NAMES}
    assert len(images) == 1
    assert not any(container["image"].endswith((":latest", "reconciler"))
                   for _, container in either.containers())  # fmt: skip


def test_pods_run_unprivileged_and_read_only(either: Cluster) -> None:
    for spec, container in either.containers():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
    for name in NAMES:
        assert either.container(name)["securityContext"]["readOnlyRootFilesystem"] is True
        assert either.pod(name)["spec"]["securityContext"]["runAsUser"] == 10001
        assert either.pod(name)["spec"]["enableServiceLinks"] is False
    (namespace,) = either.of_kind("Namespace").values()
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", NAMES)
def test_a_stop_outlasts_the_longest_task(
    either: Cluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    celery = celery_settings(monkeypatch, either.settings)
    grace = either.pod(name)["spec"]["terminationGracePeriodSeconds"]
    assert max(celery["task_time_limit"], 89) < grace
    assert grace < celery["broker_transport_options"]["visibility_timeout"]


def test_workers_and_beats_share_one_probe(either: Cluster) -> None:
    worker, beat = either.container("worker"), either.container("beat")
    for probe in ("startupProbe", "livenessProbe"):
        assert worker[probe] == beat[probe]
    startup = worker["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > MAX_SILENCE_SECONDS
    for name in ("flower", "exporter"):
        assert {"livenessProbe", "readinessProbe"} <= set(either.container(name))


def test_flower_keeps_its_tasks_in_production(production: Cluster) -> None:
    env = {entry["name"]: entry.get("value") for entry in production.container("flower")["env"]}
    database = str(env["FLOWER_DB"])
    mounts = {mount["name"]: mount["mountPath"] for mount in
              production.container("flower")["volumeMounts"]}  # fmt: skip
    assert Path(database).parent == Path(mounts["state"])
    (volume,) = [v for v in production.pod("flower")["spec"]["volumes"] if v["name"] == "state"]
    claim = volume["persistentVolumeClaim"]["claimName"]
    assert claim in production.of_kind("PersistentVolumeClaim")
    # Only one node can mount the volume: the old pod must end before the new one starts.
    assert production.of_kind("Deployment")["reconciler-flower"]["spec"]["strategy"] == {
        "type": "Recreate"
    }
    # 20,000 tasks take 347 MB.
    limit = production.container("flower")["resources"]["limits"]["memory"]
    assert int(limit.removesuffix("Mi")) > 2 * 347


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_pods_are_spread_over_zones_and_nodes(production: Cluster, name: str) -> None:
    spec = production.pod(name)
    keys = set()
    for constraint in spec["spec"]["topologySpreadConstraints"]:
        wanted = constraint["labelSelector"]["matchLabels"].items()
        assert wanted <= spec["metadata"]["labels"].items()
        keys.add(constraint["topologyKey"])
    assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


def test_a_disruption_always_leaves_one_pod(production: Cluster) -> None:
    budgets = production.of_kind("PodDisruptionBudget")
    assert set(budgets) == {"reconciler-worker", "reconciler-beat"}
    for name, budget in budgets.items():
        deployment = production.of_kind("Deployment")[name]["spec"]
        assert 0 < budget["spec"]["minAvailable"] < deployment["replicas"]
        assert budget["spec"]["selector"] == deployment["selector"]


def test_development_can_be_drained() -> None:
    """A disruption budget for a single replica would block every drain."""
    development = cluster("development")
    assert not development.of_kind("PodDisruptionBudget")
    for name in NAMES:
        assert development.of_kind("Deployment")[f"reconciler-{name}"]["spec"]["replicas"] == 1


def test_selectors_find_their_pods(either: Cluster) -> None:
    deployments = either.of_kind("Deployment").values()
    for deployment in deployments:
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for service in either.of_kind("Service").values():
        wanted = service["spec"]["selector"].items()
        (pod,) = [d["spec"]["template"] for d in deployments
                  if wanted <= d["spec"]["template"]["metadata"]["labels"].items()]  # fmt: skip
        (port,) = service["spec"]["ports"]
        own = {p["name"]: p["containerPort"] for c in pod["spec"]["containers"]
               for p in c.get("ports", ())}  # fmt: skip
        assert own[port["targetPort"]] == port["port"]
    for name in ("flower", "exporter"):
        (served,) = either.container(name)["ports"]
        assert f"--port={served['containerPort']}" in either.container(name)["command"]


def test_the_network_is_closed(production: Cluster) -> None:
    policies = {name: found["spec"] for name, found in production.of_kind("NetworkPolicy").items()}
    everything = policies["reconciler"]
    # The selector is empty, or it is the label that every pod has.
    assert everything["podSelector"] in (
        {},
        {"matchLabels": {"app.kubernetes.io/name": "reconciler"}},
    )
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everything
    ports = {port["port"] for rule in everything["egress"] for port in rule["ports"]}
    assert ports == {53, 443, 6379}
    (rule,) = policies["reconciler-watched"]["ingress"]
    (source,) = rule["from"]
    assert source["namespaceSelector"]["matchLabels"]
    (watched,) = policies["reconciler-watched"]["podSelector"]["matchExpressions"]
    assert set(watched["values"]) == {"flower", "exporter"}


# -- components


def roles_of(found: Cluster) -> dict[str, str | None]:
    return {
        name: account["metadata"].get("annotations", {}).get("eks.amazonaws.com/role-arn")
        for name, account in found.of_kind("ServiceAccount").items()
    }


def test_each_pod_uses_its_service_account(production: Cluster) -> None:
    used = {name: production.pod(name)["spec"]["serviceAccountName"] for name in NAMES}
    assert used == {
        "worker": "reconciler-worker",
        "beat": "reconciler-beat",
        "flower": "reconciler-watcher",
        "exporter": "reconciler-watcher",
    }
    assert set(used.values()) == set(production.of_kind("ServiceAccount"))


def test_pod_identity_reaches_only_its_agent(production: Cluster) -> None:
    assert set(roles_of(production).values()) == {None}
    spec = production.of_kind("NetworkPolicy")["reconciler-pod-identity"]["spec"]
    (selected,) = spec["podSelector"]["matchExpressions"]
    assert selected["values"] == ["worker", "beat"]
    (rule,) = spec["egress"]
    assert rule == {"to": [{"ipBlock": {"cidr": "169.254.170.23/32"}}],
                    "ports": [{"protocol": "TCP", "port": 80}]}  # fmt: skip


def test_irsa_gives_roles_to_workers_and_beats(tmp_path: Path) -> None:
    roles = roles_of(with_components(tmp_path, "irsa"))
    assert roles.pop("reconciler-watcher") is None
    assert all(role is not None and role.endswith(name) for name, role in roles.items())


def test_keda_scales_workers_by_their_queues(tmp_path: Path) -> None:
    found = with_components(tmp_path, "keda")
    assert "replicas" not in found.of_kind("Deployment")["reconciler-worker"]["spec"]
    spec = found.of_kind("ScaledObject")["reconciler-worker"]["spec"]
    assert spec["scaleTargetRef"]["name"] in found.of_kind("Deployment")
    assert spec["minReplicaCount"] >= 2
    triggers = spec["triggers"]
    assert {trigger["metadata"]["listName"] for trigger in triggers} == {"sweep", "release"}
    for trigger in triggers:
        where = trigger["metadata"]
        address = found.settings["CELERY_BROKER_URL"].removeprefix("rediss://")
        assert f"{where['address']}/{where['databaseIndex']}" == address
        assert (where["username"], where["enableTLS"]) == (user_of("scaler"), "true")
        assert where["username"] in read_users(USERS.read_text())
        authentication = found.of_kind("TriggerAuthentication")[
            trigger["authenticationRef"]["name"]
        ]
        (secret,) = authentication["spec"]["secretTargetRef"]
        assert (secret["parameter"], secret["key"]) == ("password", "scaler")


def test_the_service_monitor_finds_the_exporter(tmp_path: Path) -> None:
    found = with_components(tmp_path, "service-monitor")
    spec = found.of_kind("ServiceMonitor")["reconciler-exporter"]["spec"]
    service = found.of_kind("Service")["reconciler-exporter"]
    assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = spec["endpoints"]
    (port,) = service["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    # With annotations, a Prometheus that follows them would scrape the exporter twice.
    assert "annotations" not in found.pod("exporter")["metadata"]


def test_all_components_can_be_combined(tmp_path: Path) -> None:
    others = {path.name for path in (DIRECTORY / "components").iterdir()} - {"pod-identity"}
    found = with_components(tmp_path, *others)
    assert {kind for kind, _ in found.objects} >= {"Deployment", *OF_OPERATORS}
