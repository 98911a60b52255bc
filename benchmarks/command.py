"""The benchmark's command line."""

from __future__ import annotations

from dataclasses import replace

import click
from rich.console import Console

from benchmarks import contention, drain, fans, index, latency, report, rotation, runs, storm
from benchmarks.measured import Measurement, measure, quieten
from benchmarks.mix import Mix
from benchmarks.runs import Plan
from benchmarks.standin import stand_in

_QUICK = 600


@click.group(invoke_without_command=True)
@click.option("--quick", is_flag=True, help=f"Use {_QUICK} orchestrations; takes half a minute.")
@click.option("--orchestrations", type=click.IntRange(1), help="How many.  [default: 8000]")
@click.option("--children", type=click.IntRange(1), default=5, show_default=True)
@click.option("--in-flight", type=click.FloatRange(0, 1), default=0.2, show_default=True)
@click.option("--stranded", type=click.FloatRange(0, 1), default=0.1, show_default=True)
@click.option(
    "--segments", type=click.IntRange(1), help="Segments of the scan.  [default: the sweep chooses]"
)
@click.option("--latency-ms", type=float, default=0.0, help="Delay added to each request.")
@click.option("--repeat", type=click.IntRange(1), default=1, help="Number of runs; shows medians.")
@click.option("--share", is_flag=True, help="Use one DynamoDB Local for a sweep and its floor.")
@click.option("--check", is_flag=True, help="Exit with 1 if a ratio to the floor misses its goal.")
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
    check: bool,
    save: bool,
) -> None:
    """Compare the cost of a sweep with the floor, on DynamoDB Local.

    Without a command: steady state, floor, and a sweep after an outage, for one table.
    """
    size = orchestrations or (_QUICK if quick else Mix().orchestrations)
    mix = Mix(size, children, in_flight, stranded)
    plan = Plan(mix, segments, latency_ms / 1000, repeat, share)
    context.obj = plan, save
    report.commit()  # before anything runs
    if context.invoked_subcommand is None:
        unmet = report.unmet(_compare(plan, save=save))
        if check and unmet:
            raise click.ClickException(f"goals not met: {', '.join(unmet)}")


def _compare(plan: Plan, *, save: bool, scenario: str = "compare") -> dict[str, Measurement]:
    console = _console()
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
    return found


def _console() -> Console:
    """Return a console that is wide enough for the tables, even in a pipe."""
    return Console(width=max(Console().width, 100))


def _say(console: Console) -> runs.Say:
    return lambda text: console.print(f"… {text}", style="dim")


@bench.command()
@click.argument("sizes", nargs=-1, type=int)
@click.pass_obj
def sizes(plan_and_save: tuple[Plan, bool], sizes: tuple[int, ...]) -> None:
    """Measure the cost by table size (orchestrations)."""
    plan, save = plan_and_save
    for size in sizes or (250, 1_000, 4_000, 16_000):
        _compare(
            replace(plan, mix=replace(plan.mix, orchestrations=size)), save=save, scenario="sizes"
        )


@bench.command()
@click.argument("shares", nargs=-1, type=float)
@click.pass_obj
def stranded(plan_and_save: tuple[Plan, bool], shares: tuple[float, ...]) -> None:
    """Measure the cost by the share of stranded orchestrations."""
    plan, save = plan_and_save
    for share in shares or (0.0, 0.05, 0.1, 0.2, 0.4):
        _compare(
            replace(plan, mix=replace(plan.mix, stranded=share)), save=save, scenario="stranded"
        )


@bench.command()
@click.argument("counts", nargs=-1, type=int)
@click.pass_obj
def segments(plan_and_save: tuple[Plan, bool], counts: tuple[int, ...]) -> None:
    """Measure the cost by the number of segments, with nothing wrong."""
    plan, save = plan_and_save
    console = _console()
    found: dict[str, Measurement] = {}
    with runs.seeded(replace(plan.mix, repaired=True), _say(console)) as place:
        for count in counts or (1, 2, 4, 8, 16, 32):
            found[f"{count} segments"] = measure(plan.job("sweep", place, segments=count))
    report.show_runs(console, f"{plan.mix.rows:,} rows", found)
    if save:
        report.save("segments", {"mix": plan.mix.to_json()}, found)


@bench.command()
@click.argument("counts", nargs=-1, type=int)
@click.pass_obj
def workers(plan_and_save: tuple[Plan, bool], counts: tuple[int, ...]) -> None:
    """Measure the cost of reading 16 segments by the number of processes, with nothing wrong."""
    plan, save = plan_and_save
    console = _console()
    plan = replace(plan, segments=plan.segments or 16)
    found: dict[str, Measurement] = {}
    with runs.seeded(replace(plan.mix, repaired=True), _say(console)) as place:
        for count in counts or (1, 2, 4, 8):
            found[f"{count} workers"] = runs.by_workers(plan, place, count)
    report.show_runs(console, f"{plan.mix.rows:,} rows", found)
    if save:
        facts = {"mix": plan.mix.to_json(), "latency_ms": plan.latency_seconds * 1000}
        report.save("workers", facts, found)


@bench.command("index")
@click.pass_obj
def index_(plan_and_save: tuple[Plan, bool]) -> None:
    """Compare a sweep by the index with its floor and with a scan; measure a write to the index."""
    plan, save = plan_and_save
    console = _console()
    mix = replace(plan.mix, repaired=True)
    with runs.seeded(mix, _say(console), index.add) as place:
        settings = {**(plan.settings or {}), "active_index_name": index.INDEX}
        found = {"by index": measure(plan.job("active", place, settings=settings))}
        found["floor"] = measure(plan.job("active floor", place))
        found["scan"] = measure(plan.job("sweep", place))
        changed = index.units_of_a_change(place)
    with runs.seeded(replace(mix, orchestrations=20), _say(console)) as place:
        unchanged = index.units_of_a_change(place)
    report.show_runs(console, f"{mix.rows:,} rows, {mix.in_flight:.1%} in flight", found)
    console.print(f"a status change: {changed:g} write units, {unchanged:g} without the index")
    if save:
        facts = {"mix": mix.to_json(), "change_units": [changed, unchanged]}
        report.save("index", facts, found)


@bench.command("rotation")
@click.option(
    "--ceiling",
    default=rotation.Plan().ceiling,
    show_default=True,
    help="SCAN_READ_UNITS_PER_SECOND.",
)
@click.pass_obj
def rotation_(plan_and_save: tuple[Plan, bool], ceiling: float) -> None:
    """Show how evenly sweeps read the table in rotation, with a limit on reads."""
    plan, save = plan_and_save
    console = _console()
    planned = replace(rotation.Plan(), ceiling=ceiling)
    found = rotation.run(replace(plan.mix, repaired=True), planned, _say(console))
    report.show_rotation(console, found)
    if save:
        report.save("rotation", {"mix": plan.mix.to_json(), **found.to_json()}, {})


@bench.command("contention")
@click.argument("counts", nargs=-1, type=int)
@click.option("--children", default=300, show_default=True)
@click.pass_obj
def contention_(plan_and_save: tuple[Plan, bool], counts: tuple[int, ...], children: int) -> None:
    """Count conflicts on a row while many workers release siblings at once."""
    _, save = plan_and_save
    quieten()
    found = [
        contention.run(children, count, locked=locked)
        for count in counts or (2, 8, 32)
        for locked in (False, True)
    ]
    report.show_contention(_console(), found)
    if save:
        report.save("contention", {"outcomes": [one.to_json() for one in found]}, {})


@bench.command("storm")
@click.argument("sizes", nargs=-1, type=click.IntRange(1))
@click.option("--children", type=click.IntRange(1), default=1000, show_default=True)
@click.option(
    "--check-counts",
    is_flag=True,
    help="Exit with 1 if a count per release exceeds its bound.",
)
@click.pass_obj
def storm_(
    plan_and_save: tuple[Plan, bool], sizes: tuple[int, ...], children: int, *, check_counts: bool
) -> None:
    """Compare releasing stranded children through Celery with a plain program.

    SIZES: stranded children per orchestration.  [default: 1 10 300]
    """
    plan, save = plan_and_save
    console = _console()
    found = []
    for each in sizes or (1, 10, 300):
        found.append(storm.run(children, each, _say(console), plan.repeat))
        if save:
            report.save("storm", found[-1].to_json(), {})
    report.show_storms(console, found)
    unmet = [f"{name} ({one.each} each)" for one in found for name in one.broken_bounds()]
    if check_counts and unmet:
        raise click.ClickException(f"bounds exceeded: {', '.join(unmet)}")


@bench.command("latency")
@click.argument("settings", nargs=-1, type=click.Choice(list(latency.SETTINGS)))
@click.option("--seconds", type=click.IntRange(1), help="How long events are lost.")
@click.pass_obj
def latency_(
    plan_and_save: tuple[Plan, bool], settings: tuple[str, ...], seconds: int | None
) -> None:
    """Measure the time from due to released: in a trickle, in a storm, and with killed workers."""
    plan, save = plan_and_save
    console = _console()
    chosen = {name: latency.SETTINGS[name] for name in settings or latency.SETTINGS}
    if seconds is not None:
        chosen = {name: replace(setting, seconds=seconds) for name, setting in chosen.items()}
    found = []
    for outcome in latency.run(replace(plan.mix, repaired=True), chosen, _say(console)):
        found.append(outcome)
        if save:
            report.save("latency", outcome.to_json(), {})
    report.show_latencies(console, found)


@bench.command("drain")
@click.option("--children", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--each", type=click.IntRange(1), default=10, show_default=True)
@click.option(
    "--interval",
    type=click.IntRange(1),
    default=drain.INTERVAL_SECONDS,
    show_default=True,
    help="SWEEP_INTERVAL_SECONDS.",
)
@click.option("--check", is_flag=True, help="Exit with 1 if a goal is not met.")
@click.pass_obj
def drain_(
    plan_and_save: tuple[Plan, bool], children: int, each: int, interval: int, *, check: bool
) -> None:
    """Release a backlog at the default rate, the longest due first."""
    _, save = plan_and_save
    console = _console()
    found = drain.run(children, each, interval, _say(console))
    if save:
        report.save("drain", found.to_json(), {})
    report.show_drain(console, found)
    if check and (unmet := found.broken_bounds()):
        raise click.ClickException(f"goals not met: {', '.join(unmet)}")


@bench.command()
def plot() -> None:
    """Draw docs/images from benchmarks/results."""
    from benchmarks.plots import draw_all  # noqa: PLC0415 - only this needs matplotlib

    for path in draw_all():
        click.echo(path)


@bench.command()
@click.option("--stand-in", "standing_in", is_flag=True, help="Generate pages on request.")
@click.argument("sizes", nargs=-1, type=int)
@click.pass_obj
def memory(plan_and_save: tuple[Plan, bool], sizes: tuple[int, ...], *, standing_in: bool) -> None:
    """Measure peak memory of segment tasks by table size (rows), all tasks in one process.

    With --stand-in, the table has one segment, there is no floor, and no size is too large.
    """
    plan, save = plan_and_save
    console = _console()
    for rows in sizes or (10_000, 100_000):
        mix = replace(plan.mix, orchestrations=rows // (plan.mix.children + 1), repaired=True)
        found: dict[str, Measurement] = {}
        if standing_in:
            with stand_in(mix) as place:
                found["segment tasks"] = measure(plan.job("segment_tasks", place, segments=1))
        else:
            with runs.seeded(mix, _say(console)) as place:
                found["segment tasks"] = measure(plan.job("segment_tasks", place))
            with runs.seeded(mix, _say(console)) as place:
                found["floor"] = measure(plan.job("floor", place, segments=4))
        report.show_runs(console, f"{mix.rows:,} rows", found)
        if save:
            facts = {"mix": mix.to_json(), "stand_in": standing_in}
            report.save("memory", facts, found)


@bench.command()
@click.option(
    "--left", default=400.0, show_default=True, help="Read units per second left by others."
)
@click.option("--ceiling", default=1000.0, show_default=True, help="SCAN_READ_UNITS_PER_SECOND.")
@click.pass_obj
def pacing(plan_and_save: tuple[Plan, bool], left: float, ceiling: float) -> None:
    """Measure a scan with a limit on reads, and on a table that throttles."""
    plan, save = plan_and_save
    console = _console()
    ceiled = {"scan_read_units_per_second": ceiling}
    found: dict[str, Measurement] = {}
    with runs.seeded(replace(plan.mix, repaired=True), _say(console)) as place:
        found["free"] = measure(plan.job("sweep", place))
        found[f"ceiling {ceiling:g}/s"] = measure(plan.job("sweep", place, settings=ceiled))
        found[f"throttled at {left:g}/s"] = measure(plan.job("sweep", place, capacity=left))
    report.show_runs(console, f"{plan.mix.rows:,} rows", found)
    for name, run in found.items():
        console.print(
            f"{name}: {run.read_units / run.wall_seconds:,.0f} read units per second, "
            f"{run.throttled} of {run.operations['Scan']} scan requests throttled"
        )
    if save:
        facts = {"mix": plan.mix.to_json(), "left": left, "ceiling": ceiling}
        report.save("pacing", facts, found)


@bench.command("fans")
@click.option("--quick", is_flag=True, help="Use a tenth of the sizes.")
@click.argument("shapes", nargs=-1, type=click.Choice(list(fans.SIZES)))
@click.pass_obj
def fans_(plan_and_save: tuple[Plan, bool], shapes: tuple[str, ...], *, quick: bool) -> None:
    """Sweep a fan-out of 3,000, a join of 2,000 and a storm of 10,000, each also at a tenth."""
    plan, save = plan_and_save
    console = _console()
    for shape in shapes or fans.SIZES:
        most = fans.SIZES[shape]
        whole = most // 10 if quick else most
        for size in (whole // 10, whole):
            found = fans.run(shape, size, plan, _say(console))
            facts = fans.facts_of(shape, size, found)
            report.show_runs(console, f"{shape} of {size:,}", {shape: found})
            console.print(
                f"{facts['requests_per_release']:.3f} requests per release; "
                f"refused: {found.refusals or 'nothing'}"
            )
            if save:
                report.save("fans", facts, {shape: found})
