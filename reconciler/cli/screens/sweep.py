"""The screen of ``sweep``: what was done, what needs manual action, and the summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from reconciler.cli.console import QUIET, facts
from reconciler.cli.screens.listing import MAX_TO_ACT_ON, to_act_on
from reconciler.domain.codes import count_alarming
from reconciler.inspection.theme import Tone, age, counted, marked, tone_of_code
from reconciler.observability.printable import printable
from reconciler.repair.context import ActionOutcome
from reconciler.repair.counts import REPAIRS
from reconciler.sweeping.listing import Entry

_MAX_ACTIONS = 20


def render(
    summary: Mapping[str, Any],
    acted: Sequence[tuple[str, ActionOutcome]],
    entries: Sequence[Entry],
    *,
    is_remembered: bool,
) -> Iterator[RenderableType]:
    """Yield the screen of a sweep; ``acted``: orchestration ids and actions, in order.

    ``is_remembered``: ``list`` shows all ``entries``, so only the oldest are shown here.
    """
    for orchestration_id, action in acted[:_MAX_ACTIONS]:
        yield from _action(orchestration_id, action)
    left = len(acted) - _MAX_ACTIONS
    if left > 0:
        yield Text(f"and {left} more", QUIET)
    if acted:
        yield Text()
    if any(entry.needs_action for entry in entries):
        yield from to_act_on(entries, MAX_TO_ACT_ON if is_remembered else len(entries))
        yield Text()
    yield from _summary(summary)


def _action(orchestration_id: str, action: ActionOutcome) -> Iterator[RenderableType]:
    outcome = action.outcome if action.applied else f"would be {action.outcome}"
    detail = f" ({action.detail})" if action.detail else ""
    yield Text.assemble(
        marked(tone_of_code(action.code), action.code),
        f"  {printable(orchestration_id)} {printable(action.sub_issue_id)}",
    )
    said = Text(printable(f"{action.verb}: {outcome}{detail}"), QUIET)
    yield Padding(said, (0, 0, 0, 4))


def _summary(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    tone, said = (Tone.DONE, "complete") if summary["complete"] else (Tone.FAILED, "NOT complete")
    sign = marked(tone, said)
    mode = "" if summary["mode"] == "repair" else f"  ({summary['mode']}: nothing was changed)"
    what = "Sweep " if summary["segments"] else "Evaluation "
    yield Text.assemble((what, "bold"), summary["sweep_id"], "  ", sign, (mode, "yellow"))
    yield facts((name, Text(said, style)) for name, said, style in _lines(summary))


def _lines(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    segments = summary["segments"]
    if segments:
        read = (
            f"{counted(summary['rows_scanned'], 'row')} of "
            f"{counted(summary['orchestrations_scanned'], 'orchestration')} in "
            f"{counted(segments, 'segment')}; "
            f"{summary['orchestrations_evaluated']} evaluated"
        )
        yield "read", read, ""
    done = {name: summary[name] for name in REPAIRS if summary[name]}
    yield "repaired", _listed(done), ""
    if summary.get("planned"):
        yield "would be", _listed(summary["planned"]), "yellow"
    stuck = summary["stuck"]
    yield "stuck", _listed(stuck), "bold red" if count_alarming(stuck) else ""
    if summary["errors"]:
        where = "; the log names them" if segments else ""
        yield "errors", f"{summary['errors']}{where}", "bold red"
    used = summary["consumed"]
    consumed = (
        f"{counted(used['requests'], 'request')}, {used['read_units']:g} read and "
        f"{used['write_units']:g} write units, in {age(summary['duration_seconds'])}"
    )
    yield "consumed", consumed, QUIET


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
