"""What is measured of the reconciler: a whole sweep, or segments in turn, as tasks run them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from benchmarks.metering import Meter, MeteredSession, Run
from benchmarks.place import Place
from reconciler.composition import build_reconciler
from reconciler.repair.reconciler import Reconciler
from reconciler.settings import Settings
from reconciler.sweeping.inline import new_state, run_inline_sweep
from reconciler.sweeping.scan import scan_segment
from reconciler.sweeping.segments import NEVER, Scope, Segment, choose_totals
from reconciler.sweeping.segments import Place as ScanPlace


def make_reconciler(place: Place, meter: Meter, settings: dict[str, Any]) -> Reconciler:
    """Build a reconciler as in production, with the meter attached to its clients."""
    session = MeteredSession(place.session(), meter)
    return build_reconciler(settings_of(place, **settings), session=session)


def settings_of(place: Place, **settings: Any) -> Settings:  # noqa: ANN401 - of any setting
    """Return the settings for a place."""
    return Settings(
        orchestration_table_name=place.orchestrations,
        task_table_name=place.tasks,
        task_events_table_name=place.events,
        orchestrator_function_arn="arn:aws:lambda:us-east-1:123456789012:function:orchestrator:live",
        **settings,
    )


def prepare_sweep(reconciler: Reconciler, segments: int | None) -> Run:
    """Return a run of a whole sweep in this process, like ``reconciler sweep --inline``."""

    def run() -> dict[str, Any]:
        summary = run_inline_sweep(reconciler, segments=segments)
        return {**summary.to_json(), "recovered": summary.counts.repairs}

    return run


def prepare_active_sweep(reconciler: Reconciler, segments: int | None) -> Run:
    """Return a run of a sweep by the index, with nothing known to be stuck."""
    whole = Segment(Scope.TABLE, 0, segments or 1)

    def run() -> dict[str, Any]:
        # Mark the whole table as just read, so that none of it is due.
        state = new_state(reconciler)
        state.set_total(Scope.TABLE, whole.total)
        for number in range(whole.total):
            segment = replace(whole, number=number)
            state.take(segment, "benchmark", state.now())
            state.finish(segment, "benchmark")
        return run_inline_sweep(reconciler, state=state, segments=whole.total).to_json()

    return run


def prepare_segment_tasks(
    reconciler: Reconciler, segments: int | None, first: int, every: int
) -> Run:
    """Return a run that reads segments one after the other, as one worker process would."""

    def run() -> dict[str, Any]:
        size = reconciler.orchestrations.size_bytes
        total = segments or choose_totals("auto", size, lambda: 1, {})[Scope.TABLE]
        rows = 0
        nominated: Counter[str] = Counter()
        for segment in range(first, total, every):
            result = scan_segment(
                reconciler,
                Segment(Scope.TABLE, segment, total),
                ScanPlace(NEVER),
                out_of_time=lambda: False,
                nominate=lambda *_: nominated.update(all=1),
            )
            rows += result.counts.rows_scanned
        return {"segments": total, "rows_scanned": rows, "nominated": nominated["all"]}

    return run
