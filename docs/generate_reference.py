"""Writes the reference pages from the code; ``--check`` fails if one of them is stale.

``python -m docs.generate_reference [--check]``. The pages list the settings, commands, metrics, log
events, and the attributes that the reconciler writes. The attributes are recorded: a sweep repairs
one case of each kind on tables in memory, and the page lists what changed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from docs.reference_texts import ATTRIBUTES, EVENTS, EXAMPLES, EXIT_CODES, SUMMARY_FIELDS
from reconciler.cli.main import COMMANDS, root
from reconciler.observability.metrics import EXPORTED, METRICS, Metric
from reconciler.settings import Settings

HERE = Path(__file__).parent
_BAR = r"\|"
ROOT = HERE.parent
MADE = "`python -m docs.generate_reference` makes this page from the code.\n"


# -- settings


def settings_page() -> str:
    """Return the page of the settings."""
    rows = []
    for name, setting in Settings.model_fields.items():
        default = "required" if setting.is_required() else _default(setting.get_default())
        rows.append((f"`{name.upper()}`", default, setting.description or ""))
    return (
        "# Settings\n\n"
        f"All settings are environment variables. {MADE}"
        "AWS credentials, region and endpoint are configured the standard way (`AWS_REGION`,\n"
        "`AWS_ENDPOINT_URL`, a profile, a role). If a setting is invalid, the program exits at "
        "start-up with\none line that names it.\n\n" + _table(("name", "default", "meaning"), rows)
    )


def _default(value: object) -> str:
    if value is None or value == frozenset():
        return "unset"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


# -- commands


def commands_page() -> str:
    """Return the page of the command line."""
    parts = [
        "# Commands\n\n",
        MADE,
        "Every command also takes `--help`. Commands that print data take `--json`.\n\n",
        "## Exit codes\n\n",
        _table(("code", "meaning"), [(str(code), said) for code, said in EXIT_CODES.items()]),
        "\n",
    ]
    for name, line in COMMANDS.items():
        command = root.get_command(click.Context(root), name)
        if command is None:
            msg = f"reconciler has no {name}"
            raise LookupError(msg)
        parts.append(_command(name, line, command))
    return "".join(parts)


def _command(name: str, line: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"reconciler {name}")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    said = [f"## `reconciler {name}`\n\n{line}\n\n```text\n{usage}\n```\n\n"]
    extra = _paragraphs(command.help or "")[1:]
    said += [f"{paragraph}\n\n" for paragraph in extra]
    records = [param.get_help_record(context) for param in command.params if param.name != "help"]
    options = [(f"`{record[0]}`", record[1]) for record in records if record is not None]
    if options:
        said.append(_table(("option", "meaning"), options) + "\n")
    if name in EXAMPLES:
        said.append("```sh\n" + "".join(f"{shown}\n" for shown in EXAMPLES[name]) + "```\n\n")
    return "".join(said)


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.replace("\b", "").split()) for part in text.split("\n\n") if part.strip()]


# -- metrics


def metrics_page() -> str:
    """Return the page of the metrics."""
    columns = ("name", "type", "labels", "meaning")
    return (
        "# Metrics\n\n"
        f"{MADE}"
        "`reconciler metrics` serves them for Prometheus. Every series starts at zero.\n"
        "The [runbook](operating.md) explains the alerts.\n\n"
        + _table(columns, [_metric(metric) for metric in METRICS.values()])
        + "\n## What the endpoint adds\n\n"
        "Only the scrape endpoint has these metrics. They describe the broker and the settings.\n\n"
        + _table(columns, [_metric(metric) for metric in EXPORTED.values()])
        + "\n## Label values\n\n"
        + "".join(
            f"- `{metric.name}{{{label}}}`: {', '.join(f'`{value}`' for value in values)}\n"
            for metric in (*METRICS.values(), *EXPORTED.values())
            for label, values in metric.known.items()
        )
    )


def _metric(metric: Metric) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
    return (f"`{metric.name}`", metric.kind, labels, metric.help)


# -- log events


@dataclass(slots=True)
class Event:
    """An event as the code logs it: its levels, and the fields that the call names."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def events() -> dict[str, Event]:
    """Return every event that the product logs with a literal name."""
    found: dict[str, Event] = {}
    for package in ("reconciler", "workers"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for call in _calls(ast.parse(path.read_text(encoding="utf-8"))):
                name = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
                if isinstance(name, str) and name.startswith("orch."):
                    event = found.setdefault(name, Event())
                    event.levels.add(call.func.attr)  # type: ignore[attr-defined] # see _calls
                    event.fields.update(key.arg for key in call.keywords if key.arg is not None)
    return dict(sorted(found.items()))


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"debug", "info", "warning", "error"}
            and node.args
        ):
            yield node


def events_page() -> str:
    """Return the page of the log events."""
    found = events()
    if found.keys() != EVENTS.keys():
        msg = f"docs/reference_texts.py and the code differ in: {found.keys() ^ EVENTS.keys()}"
        raise LookupError(msg)
    rows = []
    for name, event in found.items():
        meaning, more = EVENTS[name]
        fields = ", ".join(f"`{key}`" for key in sorted(event.fields | set(more)))
        if name == "orch.sweep.completed":
            fields += ", and the summary below"
        rows.append((f"`{name}`", ", ".join(sorted(event.levels)), meaning, fields))
    return (
        "# Log events\n\n"
        f"{MADE}"
        "With `LOG_FORMAT=json`, or if standard error is not a terminal, each event is one JSON "
        "object on\none line. Its name is in `event`. A worker adds `celery_task_id` and the "
        "arguments of its task.\n\n"
        + _table(("event", "level", "when", "fields"), rows)
        + "\n## The summary of a sweep\n\n"
        "`orch.sweep.completed`, `reconciler sweep --json` and the result of the sweep have these "
        "fields:\n\n"
        + _table(("field", "meaning"), [(f"`{key}`", said) for key, said in SUMMARY_FIELDS.items()])
    )


# -- rows


def rows_page() -> str:
    """Return the page of what the reconciler writes."""
    from docs.recorded_writes import record  # noqa: PLC0415 - it needs the tests' tables

    head = (
        "# What it writes\n\n"
        f"{MADE}"
        "A sweep repaired one case of each kind on tables in memory and wrote these attributes. "
        "It never\nchanges another attribute and never deletes a row of the platform. The platform "
        "ignores attributes\nthat begin with `reconcil`: they are the reconciler's own.\n\n"
    )
    parts = [head]
    for kind, names in record().items():
        unknown = [name for name in names if name not in ATTRIBUTES[kind]]
        if unknown:
            msg = f"docs/reference_texts.py does not describe {unknown} of {kind}"
            raise LookupError(msg)
        rows = [(f"`{name}`", ATTRIBUTES[kind][name]) for name in names]
        parts.append(f"## {kind}\n\n" + _table(("attribute", "meaning"), rows) + "\n")
    return "".join(parts).rstrip("\n") + "\n"


# -- all of them


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [_line(head), "|" + "---|" * len(head), *(_line(row) for row in rows)]
    return "".join(f"{line}\n" for line in lines)


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(' '.join(cell.split()).replace('|', _BAR) for cell in cells)} |"


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "commands.md": commands_page,
    "metrics.md": metrics_page,
    "log-events.md": events_page,
    "rows.md": rows_page,
}


def stale() -> list[str]:
    """Return the pages that differ from the code."""
    return [
        name
        for name, render in PAGES.items()
        if not (HERE / name).exists() or (HERE / name).read_text(encoding="utf-8") != render()
    ]


if __name__ == "__main__":
    if "--check" in sys.argv:
        found = stale()
        sys.exit(
            f"stale: {', '.join(found)}; run python -m docs.generate_reference" if found else 0
        )
    for page, render in PAGES.items():
        (HERE / page).write_text(render(), encoding="utf-8")
