"""The compose file and the image: names that exist, waits that can end, and stops that are clean.

There is no Docker where this runs; what can be wrong without it is looked at here.
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
from tests.support.containers import celery_settings, check_command, check_environment

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
REFERENCE = re.compile(r"\$\{(?P<name>[A-Z][A-Z0-9_]*)(?::-(?P<default>[^}]*))?\}")
OURS = ("tables", "worker", "beat-1", "beat-2", "flower", "metrics")


def _interpolate(value: Any) -> Any:
    """Put defaults in, in the parsed tree: an empty one is an empty string then, and not null."""
    if isinstance(value, str):
        return REFERENCE.sub(lambda found: found["default"] or "", value)
    if isinstance(value, dict):
        return {key: _interpolate(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_interpolate(inner) for inner in value]
    return value


SERVICES: dict[str, dict[str, Any]] = _interpolate(yaml.safe_load(TEXT)["services"])


def test_every_value_from_outside_has_a_default() -> None:
    without = [found["name"] for found in REFERENCE.finditer(TEXT) if found["default"] is None]
    assert without == []
    # A dollar sign that is not a reference would be an error of interpolation.
    assert "$" not in REFERENCE.sub("", TEXT)


@pytest.mark.parametrize("name", OURS)
def test_the_environment_is_settings_and_they_load(name: str) -> None:
    check_environment(SERVICES[name]["environment"])


def test_every_setting_can_be_set_from_outside() -> None:
    settings = {name.upper() for name in Settings.model_fields}
    outside = {found["name"] for found in REFERENCE.finditer(TEXT)}
    assert settings - outside == set()
    assert settings - set(SERVICES["worker"]["environment"]) == set()


def test_what_is_not_set_outside_is_the_contract_s_default() -> None:
    environment = {key: str(value) for key, value in SERVICES["worker"]["environment"].items()}
    loaded = load_settings(environment).model_dump()
    tables = ("orchestration_table_name", "task_table_name", "task_events_table_name")
    bare = load_settings({name.upper(): loaded[name] for name in tables}).model_dump()
    different = {name for name in loaded if loaded[name] != bare[name]}
    assert different == {
        "celery_broker_url",
        "celery_result_backend",
        "user_concurrency_table_name",
    }


def test_all_of_ours_agree_on_broker_and_tables() -> None:
    shared = [
        {k: v for k, v in SERVICES[name]["environment"].items() if k != "FLOWER_BASIC_AUTH"}
        for name in OURS
    ]
    assert all(environment == shared[0] for environment in shared)


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_waited_for_can_come(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        waited_for = SERVICES[other]
        if how["condition"] == "service_healthy":
            assert waited_for["healthcheck"]["test"][0] == "CMD"
        else:
            assert how["condition"] == "service_completed_successfully"
            assert waited_for["restart"] == "no"


def test_all_but_the_one_shot_are_started_again_and_looked_after() -> None:
    again = {name for name, service in SERVICES.items() if service["restart"] == "unless-stopped"}
    assert set(SERVICES) - again == {"tables"}
    assert all("test" in SERVICES[name]["healthcheck"] for name in again)


def test_a_stop_outlasts_the_longest_task(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = celery_settings(monkeypatch, SERVICES["worker"]["environment"])["task_time_limit"]
    for service in SERVICES.values():
        assert int(service["stop_grace_period"].removesuffix("s")) > longest


@pytest.mark.parametrize("name", OURS)
def test_commands_exist_with_the_options_that_they_are_given(name: str) -> None:
    check_command(SERVICES[name]["command"])


def test_two_beats_are_the_same() -> None:
    assert SERVICES["beat-1"] == SERVICES["beat-2"]


def test_the_broker_neither_evicts_nor_forgets() -> None:
    command = " ".join(SERVICES["broker"]["command"])
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command
    assert SERVICES["broker"]["volumes"] == ["broker-data:/data"]


def test_what_is_published_is_so_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "flower": ["127.0.0.1:5555:5555"],
        "metrics": ["127.0.0.1:9464:9464"],
    }
    assert SERVICES["flower"]["environment"]["FLOWER_BASIC_AUTH"]


def test_images_are_pinned() -> None:
    foreign = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert all(re.search(r":\d+\.\d+", image) for image in foreign)


def test_the_image_installs_the_lock_and_is_not_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert any("--require-hashes" in line for line in lines)
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001"]


def test_what_the_image_copies_reaches_the_build() -> None:
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
def test_it_holds_to_the_compose_specification(tmp_path: Path, *, interpolated: bool) -> None:
    """By the published schema, as it is written and with its defaults in place."""
    shown = tmp_path / "docker-compose.yml"
    parsed = _interpolate(yaml.safe_load(TEXT))
    shown.write_text(yaml.safe_dump(parsed) if interpolated else TEXT)
    done = subprocess.run(
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(shown)],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
