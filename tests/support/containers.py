"""Compare a deployment's containers with the program."""

from __future__ import annotations

import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import flower.options  # noqa: F401 - declares Flower's options to tornado
import pytest
import tornado.options
from celery.bin.celery import celery as celery_command

from reconciler.cli.main import root
from reconciler.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
NOT_SETTINGS = {
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_DYNAMODB",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "HOME",
    "FLOWER_BASIC_AUTH",
    "FLOWER_DB",
}
"""Environment variables that something other than ``reconciler.settings`` reads."""


def check_environment(environment: Mapping[str, Any]) -> Settings:
    """Check that every name is read, and that the values are valid together."""
    known = {field.upper() for field in Settings.model_fields}
    assert set(environment) - known - NOT_SETTINGS == set()
    return load_settings({name: str(value) for name, value in environment.items()})


def check_command(command: Sequence[str]) -> None:
    """Check that the command exists and takes its options."""
    program, *arguments = command
    if program == "reconciler":
        found = root.get_command(click.Context(root), arguments[0])
        assert found is not None
        found.make_context(arguments[0], list(arguments[1:]))
        return
    assert [program, *arguments[:2]] == ["celery", "-A", "workers"]
    sub_command = celery_command.commands[arguments[2]]
    if arguments[2] == "flower":
        for argument in arguments[3:]:
            name = argument.removeprefix("--").partition("=")[0]
            assert name in tornado.options.options, argument
        return
    # As click does; an unknown option raises.
    context = click.Context(sub_command)
    _, left, _ = sub_command.make_parser(context).parse_args(list(arguments[3:]))
    assert left == []


def celery_settings(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, Any]) -> Any:
    """Return the settings in ``celeryconfig.py`` under an environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    return runpy.run_path(str(ROOT / "celeryconfig.py"))
