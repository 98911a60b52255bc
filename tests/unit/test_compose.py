"""The compose file and the image: every name exists, every wait can end, every stop is clean.

``integration/workers/test_compose_services.py`` runs its services as processes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.settings import Settings, load_settings
from tests.support.compose import (
    PROFILES,
    REFERENCE,
    ROOT,
    TEXT,
    Service,
    interpolate,
    services_of,
)
from tests.support.containers import celery_settings, check_command, check_environment

_NAMES = ("ORCHESTRATION_TABLE_NAME", "TASK_TABLE_NAME", "TASK_EVENTS_TABLE_NAME")
TABLES = dict.fromkeys(_NAMES, "xyz")
EITHER = {profile: services_of(profile, TABLES) for profile in PROFILES}
EVERY = [(profile, name) for profile in PROFILES for name in EITHER[profile]]
LOGIN = {"BROKER_USERNAME", "BROKER_PASSWORD"}
OURS = [(profile, name) for profile, name in EVERY if "build" in EITHER[profile][name]]


@pytest.fixture
def service(profile: str, name: str) -> Service:
    return EITHER[profile][name]


def test_profiles_differ_only_in_the_emulator() -> None:
    shared = {"broker", "flower", "metrics"}
    assert set(EITHER["aws"]) == shared | {"worker", "beat"}
    assert set(EITHER["local"]) == shared | {"worker-local", "beat-local", "dynamodb", "tables"}


def test_every_reference_has_a_default() -> None:
    text = TEXT
    while found := list(REFERENCE.finditer(text)):
        assert [reference["name"] for reference in found if reference["how"] is None] == []
        text = REFERENCE.sub("", text)
    # A dollar sign that is not a reference would be an error of interpolation.
    assert "$" not in text


@pytest.mark.parametrize(("profile", "name"), OURS)
def test_the_environment_holds_valid_settings(service: Service) -> None:
    check_environment(service["environment"])


@pytest.mark.parametrize(("profile", "name"), OURS)
def test_every_setting_can_be_set(profile: str, name: str) -> None:
    given = {field.upper(): f"of {field}" for field in Settings.model_fields}
    if name == "tables":
        given = {setting: value for setting, value in given.items() if setting not in LOGIN}
    assert given.items() <= services_of(profile, given)[name]["environment"].items()


@pytest.mark.parametrize(("profile", "name"), OURS)
def test_each_role_logs_in_as_itself(profile: str, name: str) -> None:
    """It has its own user of deploy/valkey/users.acl and no other role's password."""
    if name == "tables":
        pytest.skip("it needs no broker")
    role = {"metrics": "exporter"}.get(name, name.removesuffix("-local"))
    broker = yaml.safe_load(TEXT)["services"]["broker"]["environment"]
    given = {variable: f"of {variable}" for variable in broker}
    found = services_of(profile, {**TABLES, **given})[name]["environment"]
    own = f"BROKER_{role.upper()}_PASSWORD"
    assert own in given
    assert found["BROKER_USERNAME"] == f"reconciler-{role}"
    assert found["BROKER_PASSWORD"] == f"of {own}"
    assert not any(f"of {other}" in found.values() for other in given if other != own)
    loaded = load_settings(EITHER[profile][name]["environment"] | TABLES)
    assert loaded.broker_username is None


@pytest.mark.parametrize("profile", PROFILES)
def test_unset_variables_keep_their_defaults(profile: str) -> None:
    name = "worker" if profile == "aws" else "worker-local"
    loaded = load_settings(EITHER[profile][name]["environment"]).model_dump()
    bare = load_settings(TABLES).model_dump()
    different = {setting for setting in loaded if loaded[setting] != bare[setting]}
    broker = {"celery_broker_url", "celery_result_backend"}
    assert different - broker == (set() if profile == "aws" else {"user_concurrency_table_name"})


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_the_aws_profile_sets_only_the_broker(name: str) -> None:
    passed = services_of("aws")[name]["environment"]
    assert set(passed) - LOGIN == {"CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "HOME"}
    assert {passed[name_] for name_ in LOGIN} == {""}


@pytest.mark.parametrize("profile", PROFILES)
def test_flowers_login_comes_from_the_environment(profile: str) -> None:
    assert "FLOWER_BASIC_AUTH" not in services_of(profile)["flower"]["environment"]
    given = {"FLOWER_BASIC_AUTH": "eva:correct-horse"}
    assert given.items() <= services_of(profile, given)["flower"]["environment"].items()


@pytest.mark.parametrize("profile", PROFILES)
def test_services_agree_on_broker_and_interval(profile: str) -> None:
    given = {"SWEEP_INTERVAL_SECONDS": "60", "CELERY_BROKER_URL": "rediss://elsewhere/0", **TABLES}
    found = services_of(profile, given)
    for _, name in (pair for pair in OURS if pair[0] == profile):
        assert given.items() <= found[name]["environment"].items()


@pytest.mark.parametrize(("profile", "name"), EVERY)
def test_each_dependency_has_a_health_check(profile: str, service: Service) -> None:
    for other, how in service.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert EITHER[profile][other]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize(("profile", "name"), EVERY)
def test_each_service_restarts_and_has_limits(service: Service) -> None:
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    options = service["logging"]["options"]
    assert (options["max-size"], options["max-file"]) == ("10m", "5")


@pytest.mark.parametrize(("profile", "name"), EVERY)
def test_a_stop_outlasts_the_longest_task(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = celery_settings(monkeypatch, TABLES)["task_time_limit"]
    assert int(service["stop_grace_period"].removesuffix("s")) > longest


@pytest.mark.parametrize(("profile", "name"), OURS)
def test_commands_exist_with_their_options(service: Service) -> None:
    check_command(service["command"])
    probe = service["healthcheck"]["test"]
    if probe[1] == "reconciler":
        check_command(probe[1:])


def test_the_broker_persists_and_never_evicts() -> None:
    broker = EITHER["aws"]["broker"]
    command = " ".join(broker["command"])
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command
    assert broker["volumes"][0] == "broker-data:/data"


def test_volumes_hold_what_must_survive() -> None:
    declared = yaml.safe_load(TEXT)["volumes"]
    local = EITHER["local"]
    held = {"broker": "/data", "dynamodb": "/data", "flower": "/var/lib/flower"}
    for name, path in held.items():
        volume = local[name]["volumes"][0]
        source, target = volume.split(":")
        assert source in declared
        assert target == path
    command = local["dynamodb"]["command"]
    assert command[command.index("-dbPath") + 1] == "/data"
    assert local["flower"]["environment"]["FLOWER_DB"].startswith("/var/lib/flower/")
    # The image has the directory, with Flower's user as its owner.
    assert (
        "--owner=10001 --group=10001 --mode=0700 /var/lib/flower"
        in (ROOT / "Dockerfile").read_text()
    )


def test_published_ports_are_on_loopback() -> None:
    published = {name: found["ports"] for name, found in EITHER["aws"].items() if "ports" in found}
    assert published == {
        "flower": ["127.0.0.1:5555:5555"],
        "metrics": ["127.0.0.1:9464:9464"],
    }


def test_images_can_be_pinned_by_digest() -> None:
    pinned = {"BROKER_IMAGE": "a@sha256:1", "DYNAMODB_IMAGE": "b@sha256:2",
              "RECONCILER_IMAGE": "c@sha256:3"}  # fmt: skip
    used = {found["image"] for found in services_of("local", pinned).values()}
    assert used == set(pinned.values())
    foreign = [found["image"] for found in EITHER["local"].values() if "build" not in found]
    assert all(re.search(r":\d+\.\d+", image) for image in foreign)


def test_the_image_installs_the_lock_and_drops_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert any("--require-hashes" in line for line in lines)
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001"]


def test_the_build_context_has_every_copied_path() -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [
        next(word for word in line.split()[1:] if not word.startswith("--")).removeprefix("./")
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
    ]
    assert copied
    for source in copied:
        assert f"!{source}" in allowed
        assert list(ROOT.glob(source))


@pytest.mark.parametrize("interpolated", [False, True])
def test_the_file_matches_the_compose_specification(tmp_path: Path, *, interpolated: bool) -> None:
    """The published schema accepts it as written and with its defaults filled in."""
    shown = tmp_path / "docker-compose.yml"
    parsed: Any = interpolate(yaml.safe_load(TEXT), {})
    shown.write_text(yaml.safe_dump(parsed) if interpolated else TEXT)
    done = subprocess.run(
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(shown)],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
