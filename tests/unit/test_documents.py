"""Every command that README and docs show exists, with the options that it is given.

``tests/integration/cli/test_first_hour.py`` also runs the commands of the first hour, and
``make transcript`` runs its steps with workers.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Sequence

import click
import flower.options  # noqa: F401 - declares Flower's options to tornado
import pytest
import tornado.options
from celery.app.control import Inspect
from celery.bin.celery import celery as celery_command

from docs import generate_reference
from docs.commands import ROOT, Shown, Simple, documents, shown, simple_commands
from reconciler.cli.main import COMMANDS, root
from reconciler.errors import SettingsError
from reconciler.settings import Settings, load_settings
from tests.support.compose import REFERENCE, TEXT
from tests.support.runbook import anchors

NOT_RUN = {
    "aws": "it needs an account",
    "docker": "there is no engine where this runs",
    "kubectl": "it needs a cluster",
}
"""Programs whose commands are not checked, and why."""

OF_THE_SHELL = frozenset({".", "cat", "cd", "curl", "grep", "jq", "kill", "mkdir", "source"})
OF_COMPOSE = frozenset(found["name"] for found in REFERENCE.finditer(TEXT)) | {"COMPOSE_PROFILES"}
NOT_SETTINGS = re.compile(r"AWS_[A-Z_]+|FLOWER_[A-Z_]+|CHAOS_MINUTES|RECONCILER_[A-Z_]+")
TASKS = frozenset(
    {"reconciler.sweep", "reconciler.sweep_segment"}
    | {"reconciler.evaluate_orchestration", "reconciler.release_child"}
)
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TAKES_ARGS = {
    "bench": "benchmarks/command.py",
    "mutation": "tests/mutation/__main__.py",
    "seeded-bugs": "tests/simulation/seeded_bugs.py",
    "transcript": "docs/transcript.py",
}
EVERYTHING = [each for document in documents() for each in shown(document)]


def check(each: Shown) -> None:
    """Fail unless everything in a line exists."""
    for command in simple_commands(each):
        check_environment(command.assigned)
        if command.words:
            check_program(command, whole=each.kind != "inline")


def check_environment(assigned: dict[str, str]) -> None:
    known = {field.upper() for field in Settings.model_fields}
    for name in assigned:
        is_read = name in known | OF_COMPOSE or NOT_SETTINGS.fullmatch(name)
        assert is_read, f"no setting has the name {name}"
    least = dict.fromkeys(
        ("ORCHESTRATION_TABLE_NAME", "TASK_TABLE_NAME", "TASK_EVENTS_TABLE_NAME"), "table"
    )
    meant = {n: v for n, v in assigned.items() if n in known and "…" not in v}
    load_settings({**least, **meant})


def check_program(command: Simple, *, whole: bool) -> None:
    program, *arguments = command.words
    match program.removeprefix(".venv/bin/"):
        case "reconciler":
            check_reconciler(arguments, whole=whole)
        case "celery":
            check_celery(arguments)
        case "make":
            check_make(arguments)
        case "python" | "python3":
            assert arguments[0] == "-m"
            assert importlib.util.find_spec(arguments[1]), arguments[1]
        case "xargs":  # the rest comes from another command
            check_program(Simple({}, tuple(arguments)), whole=False)
        case other:
            assert other in OF_THE_SHELL or other in NOT_RUN, f"{other} is an unknown program"


def check_reconciler(arguments: Sequence[str], *, whole: bool) -> None:
    name, *rest = arguments
    if name.startswith("-"):
        _parse(root, arguments)
        return
    assert name in COMMANDS, f"reconciler has no {name}"
    command = root.get_command(click.Context(root), name)
    assert command is not None
    try:
        command.make_context(name, list(rest))
    except click.exceptions.Exit:
        return  # --help
    except click.MissingParameter:
        assert not whole, f"{name} lacks an argument"
        assert not rest, f"{name} lacks an argument after {rest}"


def _parse(command: click.Command, arguments: Sequence[str]) -> list[str]:
    """Parse as click would and return the arguments that are no options; raise for unknown ones."""
    parser = command.make_parser(click.Context(command))
    given, left, _ = parser.parse_args(list(arguments))
    named = [p.name for p in command.params if isinstance(p, click.Argument)]
    return [*(given[name] for name in named if name and given.get(name)), *left]


def check_celery(arguments: Sequence[str]) -> None:
    assert list(arguments[:2]) == ["-A", "workers"]
    name, *rest = arguments[2:]
    if name == "flower":
        for argument in rest:
            option = argument.removeprefix("--").partition("=")[0]
            assert option in tornado.options.options, argument
        return
    assert name in celery_command.commands, f"celery has no {name}"
    left = _parse(celery_command.commands[name], rest)
    if name == "call":
        assert left[0] in TASKS, left
        for argument in rest:
            if argument.startswith(("--args=", "--kwargs=")):
                json.loads(argument.partition("=")[2])
    elif name == "inspect":
        assert hasattr(Inspect, left[0]), f"celery cannot inspect {left[0]}"
    elif name in {"worker", "beat"}:
        assert left == []


def check_make(arguments: Sequence[str]) -> None:
    variables = dict(a.split("=", 1) for a in arguments if "=" in a)
    targets = [a for a in arguments if "=" not in a]
    assert targets
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", MAKEFILE, re.MULTILINE), f"make has no {target}"
        recipe = MAKEFILE.split(f"\n{target}:", 1)[1].split("\n\n", 1)[0]
        for name, value in variables.items():
            assert f"$({name})" in recipe or name == "PYTHON", f"{target} does not read {name}"
            if name == "ARGS":
                check_args(target, shlex.split(value))


def check_args(target: str, arguments: Sequence[str]) -> None:
    if target == "demo":
        check_reconciler(["demo", *arguments], whole=True)
        return
    source = (ROOT / TAKES_ARGS[target]).read_text(encoding="utf-8")
    for argument in arguments:
        if argument.startswith("-"):
            assert f'"{argument.partition("=")[0]}"' in source, argument


@pytest.mark.parametrize("each", EVERYTHING, ids=lambda each: each.where)
def test_every_shown_command_exists(each: Shown) -> None:
    check(each)


def test_the_reference_is_up_to_date() -> None:
    """`python -m docs.generate_reference` writes it."""
    assert generate_reference.stale() == []


def test_the_documents_show_commands() -> None:
    """If they do not, the pattern that finds commands is broken."""
    found = {(each.document, each.kind) for each in EVERYTHING}
    assert {("README.md", kind) for kind in ("sh", "cron", "inline")} <= found
    assert ("docs/first-hour.md", "sh") in found
    assert len(EVERYTHING) > 60


NAMED = re.compile(r"\bdocs/[\w/-]+\.md(?:#[\w-]+)?")
LINKED = re.compile(r"\]\((?!\w+:)([^)\s]+)\)")
FILES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "reconciler/**/*", "workers/**/*", "deploy/**/*")
    for path in ROOT.glob(pattern)
    if path.suffix in {".html", ".json", ".md", ".py", ".yaml", ".yml"}
)


def test_named_and_linked_sections_exist() -> None:
    """Advice, alerts, manifests and the dashboard name them as well as pages."""
    found = 0
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        targets = [(ROOT, name) for name in NAMED.findall(text)]
        if path.suffix == ".md":
            targets += [(path.parent, link) for link in LINKED.findall(text)]
        for base, target in targets:
            name, _, anchor = target.partition("#")
            page = (base / name) if name else path
            assert page.exists(), f"{path}: {target}"
            if anchor:
                assert anchor in anchors(page.read_text(encoding="utf-8")), f"{path}: {target}"
        found += len(targets)
    assert found > 200


@pytest.mark.parametrize(
    "text",
    [
        "reconciler sweep --inlin",
        "reconciler swepe",
        "reconciler doctor --jsn",
        "reconciler sweep --segments many",
        "reconciler release",
        "cd x && .venv/bin/reconciler sweep --inlin | tail",
        "REPAIR_ONLY_REPO=a/b reconciler sweep --inline",
        "REPAIR_MODE=yolo reconciler sweep --inline",
        "export STRANDED_GRACE_SECONDS=-1",
        "celery -A workers worker --concurency 4",
        "celery -A workers flowr",
        "celery -A workers inspect actve",
        "celery -A workers flower --prot=5555",
        "celery -A worker worker",
        "celery -A workers call reconciler.swep",
        "celery -A workers call reconciler.release_child --args='[\"orch_…\"'",
        "make dmeo",
        "make demo ARGS=--kep",
        "make demo MINUTES=3",
        "make seeded-bugs ARGS=--no-such",
        "python -m reconciler.nothing",
        "frobnicate",
    ],
)
def test_a_mistyped_command_is_found(text: str) -> None:
    slips = (AssertionError, click.UsageError, ValueError, SettingsError, ModuleNotFoundError)
    with pytest.raises(slips):
        check(Shown("README.md", 1, "sh", text))


def test_lines_are_split_as_by_a_shell() -> None:
    def words(text: str, kind: str = "sh") -> list[tuple[str, ...]]:
        return [each.words for each in simple_commands(Shown("x", 1, kind, text))]

    assert words("a b > out 2>&1 &") == [("a", "b")]
    assert words("A=1 a 'b c' | d && e  # f") == [("a", "b c"), ("d",), ("e",)]
    assert words("*/5 * * * *  a b >> c", "cron") == [("a", "b")]
    with pytest.raises(ValueError, match="cron"):
        words("*/5 * * * a", "cron")
