"""The benchmark's command line."""

from __future__ import annotations

from dataclasses import replace

import click
from rich.console import Console

from benchmarks import report, runs
from benchmarks.mix import Mix
from benchmarks.runs import Plan

_QUICK = 600


@click.group(invoke_without_command=True)
@click.option("--quick", is_flag=True, help=f"{_QUICK} orchestrations; half a minute.")
@click.option("--orchestrations", type=click.IntRange(1), help="How many.  [default: 8000]")
@click.option("--children", type=click.IntRange(1), default=5, show_default=True)
@click.option("--in-flight", type=click.FloatRange(0, 1), default=0.2, show_default=True)
@click.option("--stranded", type=click.FloatRange(0, 1), default=0.1, show_default=True)
@click.option("--segments", type=click.IntRange(1), help="Of the scan; chosen unless given.")
@click.option("--latency-ms", type=float, default=0.0, help="Added to each request.")
@click.option("--repeat", type=click.IntRange(1), default=1, help="Medians of so many runs.")
@click.option("--share", is_flag=True, help="One instance for a sweep and its floor.")
@click.option("--save/--no-save", default=False, help="Append to benchmarks/results/.")
@click.pass_context
def bench(
    context: click.Context,
    *,
    quick: bool,
    orchestrations: int | None,
    children: int,
    in_flight: float,
    stranded: float,
    segments: int | None,
    latency_ms: float,
    repeat: int,
    share: bool,
    save: bool,
) -> None:
    """Measure what a sweep costs, beside the bare floor, on DynamoDB Local.

    Without a command: steady state, floor, and after an outage, of one table.
    """
    size = orchestrations or (_QUICK if quick else Mix().orchestrations)
    mix = Mix(size, children, in_flight, stranded)
    plan = Plan(mix, segments, latency_ms / 1000, repeat, share)
    context.obj = plan, save
    if context.invoked_subcommand is None:
        _compare(plan, save=save)


def _compare(plan: Plan, *, save: bool, scenario: str = "compare") -> None:
    console = Console()
    mix = plan.mix
    found = runs.compare(plan, _say(console))
    title = f"{mix.rows:,} rows, {mix.in_flight:.0%} in flight, {mix.stranded:.0%} stranded"
    if plan.latency_seconds:
        title += f", {plan.latency_seconds * 1000:g} ms added to each request"
    report.show_runs(console, title, found)
    report.show_ratios(console, found)
    if not plan.latency_seconds:
        report.show_recorded(console, mix, found)
    if save:
        facts = {"mix": mix.to_json(), "latency_ms": plan.latency_seconds * 1000}
        report.save(scenario, facts, found)


def _say(console: Console) -> runs.Say:
    return lambda text: console.print(f"… {text}", style="dim")


@bench.command()
@click.argument("sizes", nargs=-1, type=int)
@click.pass_obj
def sizes(plan_and_save: tuple[Plan, bool], sizes: tuple[int, ...]) -> None:
    """Cost against table size (orchestrations)."""
    plan, save = plan_and_save
    for size in sizes or (250, 1_000, 4_000, 16_000):
        _compare(
            replace(plan, mix=replace(plan.mix, orchestrations=size)), save=save, scenario="sizes"
        )


@bench.command()
@click.argument("shares", nargs=-1, type=float)
@click.pass_obj
def stranded(plan_and_save: tuple[Plan, bool], shares: tuple[float, ...]) -> None:
    """Cost against the share that is stranded."""
    plan, save = plan_and_save
    for share in shares or (0.0, 0.05, 0.1, 0.2, 0.4):
        _compare(
            replace(plan, mix=replace(plan.mix, stranded=share)), save=save, scenario="stranded"
        )
