"""The record of a run in both modes, as Markdown, or as JSON if the file's name ends in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.chaos.summary import Run


def write_record(path: Path, runs: Mapping[str, Run], at: datetime, command: str) -> None:
    """Write the result of each run, by its mode."""
    facts = {mode: facts_of(run) for mode, run in runs.items()}
    if path.suffix == ".json":
        whole = {"at": f"{at:%Y-%m-%d}", "command": command, "runs": facts}
        path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    else:
        path.write_text(page(facts, at, command), encoding="utf-8")


def facts_of(run: Run) -> dict[str, Any]:
    """Return the recorded facts of a run as plain values."""
    last = run.last
    return {
        "seed": run.seed,
        "seconds of faults": round(run.seconds),
        "faults": dict(sorted(run.faults.items())),
        "orchestrations": len(run.expected),
        "children": sum(len(ends) for ends in run.expected.values()),
        "tasks": len(last.tasks),
        "released by us": sum(task.ours for task in last.tasks.values()),
        "repairs": len(last.recoveries),
        "children ever stranded": len(run.observer.ever_stranded),
        "snapshots": run.observer.samples,
        "sweeps": run.sweeps,
        "incomplete sweeps": run.incomplete_sweeps,
        "claims checked": run.claims_checked,
        "recovered after, seconds": round(run.recovered_in_seconds),
        "verdict": run.counts(),
        "problems": run.problems(),
    }


def page(facts: Mapping[str, Mapping[str, Any]], at: datetime, command: str) -> str:
    """Return the record as a page: first what must be zero, then the facts of the run."""
    modes = list(facts)
    lines = [
        "# Record of a long chaos run",
        "",
        f"Made on {at:%Y-%m-%d} by `{command}`: real workers and beats, broken on purpose.",
        "The run is made twice, by scanning the table and by the index.",
        "",
        "| must be 0 | " + " | ".join(modes) + " |",
        "|---|" + "---:|" * len(modes),
    ]
    first = facts[modes[0]]
    lines += [
        _row(name, [facts[mode]["verdict"][name] for mode in modes]) for name in first["verdict"]
    ]
    lines += ["", "| the run | " + " | ".join(modes) + " |", "|---|" + "---:|" * len(modes)]
    plain = [name for name, value in first.items() if isinstance(value, int)]
    lines += [_row(name, [facts[mode][name] for mode in modes]) for name in plain]
    lines += ["", "| faults | " + " | ".join(modes) + " |", "|---|" + "---:|" * len(modes)]
    names = sorted({name for mode in modes for name in facts[mode]["faults"]})
    lines += [_row(name, [facts[mode]["faults"].get(name, 0) for mode in modes]) for name in names]
    problems = [f"- {mode}: {said}" for mode in modes for said in facts[mode]["problems"]]
    lines += ["", "## Problems", "", *(problems or ["None."])]
    return "\n".join(lines) + "\n"


def _row(name: str, values: list[int]) -> str:
    return f"| {name} | " + " | ".join(map(str, values)) + " |"
