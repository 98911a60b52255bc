"""Plots of ``benchmarks/results``, as SVG for the documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.latency import PARTS
from benchmarks.report import load

IMAGES = Path(__file__).parents[1] / "docs" / "images"

_SWEEP, _FLOOR, _OUTAGE = "#0b6e4f", "#8d99ae", "#c8553d"
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "svg.hashsalt": "benchmarks",  # the same data produces the same file
    "svg.fonttype": "none",
}
Record = Mapping[str, Any]
Series = tuple[str, str, str]
"""Run, label, colour."""

_RUNS: Sequence[Series] = (
    ("floor", "floor: read everything, nothing else", _FLOOR),
    ("steady", "sweep, nothing wrong", _SWEEP),
    ("outage", "sweep after an outage", _OUTAGE),
)
_COLUMNS = (("requests", "requests"), ("read_units", "read units"), ("cpu_seconds", "CPU seconds"))


def draw_all() -> Iterator[Path]:
    """Draw every plot that has results; yield the files written."""
    mpl.use("svg")
    with plt.rc_context(_STYLE):
        yield from _by_mix("sizes", "rows", lambda mix: mix["orchestrations"] * 6 / 1000, "kilo")
        yield from _by_mix(
            "stranded", "share that is stranded, %", lambda mix: mix["stranded"] * 100
        )
        yield from _by_parallelism()
        yield from _by_history()
        yield from _of_a_storm()
        yield from _of_latency()
        yield from _of_a_drain()


def _by_mix(
    scenario: str, label: str, place: Callable[[Mapping[str, Any]], float], unit: str = ""
) -> Iterator[Path]:
    latest: dict[float, Record] = {place(line["mix"]): line for line in load(scenario)}
    if not latest:
        return
    figure, panels = plt.subplots(1, 3, figsize=(10, 2.9))
    places = sorted(latest)
    for panel, (key, title) in zip(panels, _COLUMNS, strict=True):
        for run, name, colour in _RUNS:
            points = [(x, latest[x]["runs"][run][key]) for x in places if run in latest[x]["runs"]]
            xs, ys = zip(*points, strict=True)
            panel.plot(xs, ys, marker="o", markersize=3.5, color=colour, label=name)
        panel.set_title(title, loc="left", fontsize=9, fontweight="bold")
        panel.set_xlabel(f"{label}, thousands" if unit else label)
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    yield _write(figure, f"cost-by-{scenario}")


def _by_parallelism() -> Iterator[Path]:
    found = {name: load(name) for name in ("segments", "workers")}
    if not all(found.values()):
        return
    figure, panels = plt.subplots(1, 2, figsize=(7, 2.9))
    for panel, (name, lines) in zip(panels, found.items(), strict=True):
        runs = lines[-1]["runs"]
        xs = [label.partition(" ")[0] for label in runs]
        for key, label, colour in (
            ("wall_seconds", "wall, seconds", _OUTAGE),
            ("cpu_seconds", "CPU, seconds", _SWEEP),
        ):
            ys = [run[key] for run in runs.values()]
            panel.plot(xs, ys, marker="o", markersize=3.5, color=colour, label=label)
        panel.set_title(f"by {name}", loc="left", fontsize=9, fontweight="bold")
        panel.set_xlabel(name)
        panel.set_ylim(bottom=0)
    panels[0].legend(frameon=False)
    figure.tight_layout()
    yield _write(figure, "cost-by-parallelism")


def _by_history() -> Iterator[Path]:
    """Draw the cost of the same active work in tables of different sizes, by index and by scan."""
    latest = {line["mix"]["orchestrations"] * 6 / 1000: line["runs"] for line in load("index")}
    if not latest:
        return
    figure, panels = plt.subplots(1, 2, figsize=(7, 2.9))
    places = sorted(latest)
    for panel, (key, title) in zip(panels, _COLUMNS[:2], strict=True):
        for run, name, colour in (
            ("scan", "full scan", _OUTAGE),
            ("floor", "floor of the index", _FLOOR),
            ("by index", "sweep by the index", _SWEEP),
        ):
            ys = [latest[x][run][key] for x in places]
            panel.plot(places, ys, marker="o", markersize=3.5, color=colour, label=name)
        panel.set_title(title, loc="left", fontsize=9, fontweight="bold")
        panel.set_xlabel("rows, thousands; the same 160 orchestrations in flight")
        panel.set_xscale("log")
        panel.set_yscale("log")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    yield _write(figure, "cost-by-history")


def _of_a_storm() -> Iterator[Path]:
    """Draw the cost of a release through Celery, by stranded children per orchestration."""
    latest = {line["each"]: line for line in load("storm")}
    if not latest:
        return
    figure, (cpu, commands) = plt.subplots(1, 2, figsize=(7, 2.9))
    sizes = [str(each) for each in sorted(latest)]
    lines = [latest[each] for each in sorted(latest)]
    for offset, (run, label, colour) in enumerate(
        (("plain", "plain program", _FLOOR), ("workers", "through Celery", _SWEEP))
    ):
        ys = [1000 * line[run]["cpu_seconds"] / line["children"] for line in lines]
        places = [place + 0.36 * offset - 0.18 for place in range(len(lines))]
        cpu.bar(places, ys, width=0.34, color=colour, label=label)
    cpu.set_title("CPU, ms per release", loc="left", fontsize=9, fontweight="bold")
    cpu.legend(frameon=False)
    for key, label, colour in (
        ("commands_per_release", "broker commands", _OUTAGE),
        ("requests_per_release", "requests to DynamoDB", _SWEEP),
        ("messages_per_release", "messages", _FLOOR),
    ):
        ys = [line[key] for line in lines]
        commands.plot(sizes, ys, marker="o", markersize=3.5, color=colour, label=label)
    commands.set_title("counts per release", loc="left", fontsize=9, fontweight="bold")
    commands.set_ylim(bottom=0)
    commands.legend(frameon=False)
    cpu.set_xticks(range(len(lines)), sizes)
    for panel in (cpu, commands):
        panel.set_xlabel("stranded children in each orchestration")
    figure.tight_layout()
    yield _write(figure, "cost-of-a-storm")


_PART_COLOURS = dict(
    zip(PARTS, ("#c9d1dc", "#8d99ae", "#0b6e4f", "#c8553d", "#e9b44c", "#5b4b8a"), strict=True)
)


def _of_latency() -> Iterator[Path]:
    """Draw the parts of the time from due to released, in intervals."""
    latest = {line["setting"]: line for line in load("latency")}
    if not latest:
        return
    figure, panel = plt.subplots(figsize=(7, 1.3 + 0.55 * len(latest)))
    for place, line in enumerate(reversed(latest.values())):
        interval, left = line["interval_seconds"], 0.0
        for part, colour in _PART_COLOURS.items():
            width = line["parts"][part]["mean"] / interval
            label = part if place == 0 else None
            panel.barh(place, width, left=left, height=0.5, color=colour, label=label)
            left += width
        for name, marker in (("p50", "|"), ("p99", "x"), ("longest", "o")):
            label = name if place == 0 else None
            at = line["seconds"][name] / interval
            panel.plot(at, place, marker, color="black", markersize=6, label=label)
    panel.set_yticks(range(len(latest)), list(reversed(latest)))
    panel.set_xlim(left=0)
    panel.grid(visible=False, axis="y")
    panel.set_xlabel("intervals from due until released; the bars are means")
    handles, names = panel.get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0.24, 1, 1))
    yield _write(figure, "latency")


def _of_a_drain() -> Iterator[Path]:
    """Draw how fast and in which order the largest backlog was released."""
    lines = load("drain")
    if not lines:
        return
    most = max(line["children"] for line in lines)
    line = next(line for line in reversed(lines) if line["children"] == most)
    seconds, released, turns = zip(*line["order"]["timeline"], strict=True)
    figure, (pace, order) = plt.subplots(1, 2, figsize=(7, 2.9))
    allowed = most * 60 / line["rate_per_minute"]
    pace.plot([0, allowed], [0, most], color=_FLOOR, label="what the rate allows")
    pace.plot((0, *seconds), (0, *released), color=_SWEEP, label="released")
    pace.set_title("released, by seconds", loc="left", fontsize=9, fontweight="bold")
    pace.set_xlabel("seconds since the first sweep began")
    pace.legend(frameon=False)
    order.plot([0, most], [0, most], color=_FLOOR, label="the oldest due first")
    order.plot(released, turns, "o", markersize=3.5, color=_SWEEP, label="its turn by age")
    order.set_title("whose turn it was", loc="left", fontsize=9, fontweight="bold")
    order.set_xlabel("place in the order of release")
    order.legend(frameon=False)
    figure.tight_layout()
    yield _write(figure, "drain")


def _write(figure: Any, name: str) -> Path:  # noqa: ANN401 - matplotlib's
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
