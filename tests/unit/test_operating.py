"""The commands, names and anchors of the runbook exist.

``test_documents.py`` checks the commands of the reconciler and of Celery in every document.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import botocore.session
import yaml
from botocore import xform_name
from botocore.validate import ParamValidator

from docs.commands import ROOT
from reconciler.broker_refusal import REFUSALS
from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.errors import ERROR_KINDS
from reconciler.settings import Settings
from tests.support.runbook import PAGE, anchors, commands

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OF_COMPOSE = {
    "ps": set(),
    "logs": {"--since", "--no-log-prefix"},
    "up": {"-d", "--scale"},
    "exec": set(),
    "stop": set(),
}
"""The commands of `docker compose` that are used, with their options (Compose 2)."""
TAKES_A_VALUE = {"--since", "--scale"}


def test_the_runbook_shows_commands() -> None:
    programs = Counter(command[0] for command in commands())
    assert set(programs) == {"reconciler", "celery", "docker", "aws"}
    assert programs["reconciler"] > 20


def test_compose_commands_name_existing_services() -> None:
    for _, compose, verb, *arguments in (c for c in commands() if c[0] == "docker"):
        assert compose == "compose"
        options = OF_COMPOSE[verb]
        words = iter(arguments)
        services = []
        for word in words:
            if not word.startswith("-"):
                services.append(word)
                if verb == "exec":
                    break  # the rest is the command that it runs
                continue
            assert word in options, (verb, word)
            if word in TAKES_A_VALUE:
                value = next(words)
                services += [value.partition("=")[0]] if word == "--scale" else []
        assert set(services) <= set(COMPOSE["services"]), services


def test_aws_commands_have_valid_parameters() -> None:
    session = botocore.session.get_session()
    for _, service, operation, *options in (c for c in commands() if c[0] == "aws"):
        model = session.get_service_model(service)
        (name,) = (n for n in model.operation_names if xform_name(n, "-") == operation)
        shape = model.operation_model(name).input_shape
        assert shape is not None
        members = {f"--{xform_name(member, '-')}": member for member in shape.members}
        given = {}
        for option, value in zip(options[::2], options[1::2], strict=True):
            member = members[option]
            structured = shape.members[member].type_name in {"map", "list", "structure"}
            given[member] = json.loads(value) if structured else value
        report = ParamValidator().validate(given, shape)
        assert not report.has_errors(), report.generate_report()


def test_named_settings_exist() -> None:
    known = {name.upper() for name in Settings.model_fields} | {
        "WORKER_CONCURRENCY",  # of the compose file
        "RECONCILER_TOTAL_FAILURE",
        "RECONCILER_PARTIAL_FAILURE",
    }
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", PAGE))
    assert named - known == set()


def test_every_alert_has_its_five_parts() -> None:
    """What it means, how bad it is, what to look at, what to do, and what not to do."""
    alerts, _, _ = PAGE.partition("\n# Diagnosis codes\n")
    sections = re.split(r"^## ", alerts, flags=re.MULTILINE)[2:]
    assert len(sections) == 19
    for section in sections:
        parts = re.findall(
            r"^\*\*(What it means|How bad|Look at|Do not|Do)\b", section, re.MULTILINE
        )
        assert parts == ["What it means", "How bad", "Look at", "Do", "Do not"], section[:40]


def test_every_code_has_its_section() -> None:
    sections = set(re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE))
    assert sections == {code.value for code in (*Code, *OrchestrationCode)}


def test_named_error_kinds_exist() -> None:
    table = re.findall(r"^\| (`.+?`) \|", PAGE, re.MULTILINE)
    named = {name for cell in table for name in re.findall(r"`(\w+)`", cell)}
    kinds = {name for name in named if name.islower()} - {"error_kind", "refusal"}
    assert kinds
    assert kinds <= set(ERROR_KINDS)
    assert {name for name in named if name.isupper()} == set(REFUSALS)


def test_each_heading_has_its_own_anchor() -> None:
    assert [name for name, count in Counter(anchors()).items() if count > 1] == []
