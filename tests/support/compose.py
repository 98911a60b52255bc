"""The compose file as Compose reads it, with variables resolved and a profile chosen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
REFERENCE = re.compile(r"\$\{(?P<name>[A-Z][A-Z0-9_]*)(?::(?P<how>[-+])(?P<word>[^${}]*))?\}")
PROFILES = ("local", "aws")

_DOLLAR = "\0"
"""Stands for a dollar sign in a value, which does not begin a reference."""

Service = dict[str, Any]


def services_of(profile: str, environ: Mapping[str, str] | None = None) -> dict[str, Service]:
    """Return the services that ``--profile`` starts if the shell has the variables ``environ``."""
    given = environ or {}
    found: dict[str, Service] = interpolate(yaml.safe_load(TEXT)["services"], given)
    return {
        name: {**service, "environment": _passed_on(service.get("environment", {}), given)}
        for name, service in found.items()
        if profile in service["profiles"]
    }


def interpolate(value: Any, environ: Mapping[str, str]) -> Any:
    """Put variables into the parsed tree; an empty variable takes its default too."""
    if isinstance(value, str):
        # From the inside out: a default can contain another reference.
        while (put_in := REFERENCE.sub(partial(_value_of, environ), value)) != value:
            value = put_in
        return value.replace(_DOLLAR, "$")
    if isinstance(value, dict):
        return {key: interpolate(inner, environ) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolate(inner, environ) for inner in value]
    return value


def _value_of(environ: Mapping[str, str], found: re.Match[str]) -> str:
    """Return the value of a reference: ``${name:-default}``, or ``${name:+value if it is set}``."""
    given = (environ.get(found["name"]) or "").replace("$", _DOLLAR)
    if found["how"] == "+":
        return found["word"] if given else ""
    return given or found["word"]


def _passed_on(environment: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """Resolve names without a value: take the shell's value, or leave the name out."""
    resolved = {name: given.get(name) if v is None else str(v) for name, v in environment.items()}
    return {name: value for name, value in resolved.items() if value is not None}
