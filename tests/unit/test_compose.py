"""The compose file and the image: names that exist, waits that can end, and stops that are clean.

There is no Docker where this runs; what can be wrong without it is looked at here.
"""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import flower.options  # noqa: F401 - declares Flower's options to tornado
import pytest
import tornado.options
import yaml
from celery.bin.celery import celery as celery_command

from reconciler.cli.main import root
from reconciler.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
REFERENCE = re.compile(r"\$\{(?P<name>[A-Z][A-Z0-9_]*)(?::-(?P<default>[^}]*))?\}")
OURS = ("tables", "worker", "beat-1", "beat-2", "flower", "metrics")
NOT_SETTINGS = {
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_DYNAMODB",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "FLOWER_BASIC_AUTH",
}


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
    environment = SERVICES[name]["environment"]
    known = {field.upper() for field in Settings.model_fields}
    assert set(environment) - known - NOT_SETTINGS == set()
    load_settings({key: str(value) for key, value in environment.items()})


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
    for name, value in SERVICES["worker"]["environment"].items():
        monkeypatch.setenv(name, str(value))
    longest = runpy.run_path(str(ROOT / "celeryconfig.py"))["task_time_limit"]
    for service in SERVICES.values():
        assert int(service["stop_grace_period"].removesuffix("s")) > longest


def _parse(command: click.Command, arguments: list[str]) -> None:
    """Parse as click would; an option that does not exist raises."""
    context = click.Context(command)
    _, left, _ = command.make_parser(context).parse_args(arguments)
    assert left == []


def _check_flower(arguments: list[str]) -> None:
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0]
        assert name in tornado.options.options, argument


@pytest.mark.parametrize("name", OURS)
def test_commands_exist_with_the_options_that_they_are_given(name: str) -> None:
    program, *arguments = SERVICES[name]["command"]
    if program == "reconciler":
        command = root.get_command(click.Context(root), arguments[0])
        assert command is not None
        command.make_context(arguments[0], list(arguments[1:]))
        return
    assert [program, *arguments[:2]] == ["celery", "-A", "workers"]
    sub_command = celery_command.commands[arguments[2]]
    if arguments[2] == "flower":
        _check_flower(arguments[3:])
    else:
        _parse(sub_command, arguments[3:])


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
        line.split()[1].removeprefix("./")
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
