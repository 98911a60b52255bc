"""The verdict on a run, as a pure function of what was observed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from reconciler.demo.observer import UNSETTLED, Observer, Snapshot, duplicates, turn_came_at
from reconciler.domain.codes import Code
from reconciler.domain.model import ChildStatus, moment

MAX_SHOWN = 5
"""How many problems of one sort are listed."""

Expected = Mapping[str, Mapping[str, ChildStatus]]
"""Orchestration id → sub-issue id → expected end."""


Sweep = Mapping[str, Any]
"""The recorded summary of an ended sweep."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a run; ``ok`` if there are no ``problems``.

    A latency is the time from when a child became due until it was repaired. ``bound_seconds`` is
    the sum of the grace, the longest time between the starts of two sweeps, and the longest sweep,
    as measured in this run. ``over_bound`` counts latencies above it. ``out_of_time``: the run was
    given up before everything had ended.
    """

    orchestrations: int
    settled: int
    children: int
    tasks: int
    events_lost: int
    stranded: int
    recovered: int
    duplicates: int
    regressions: int
    early_releases: int
    recovered_by: Mapping[str, int]
    latency_max_seconds: float | None
    latency_median_seconds: float | None
    bound_seconds: float
    over_bound: int
    sweeps: int
    sweep_longest_seconds: float
    out_of_time: bool
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return values for JSON."""
        return {"ok": self.ok, **asdict(self)}


def judge(
    observer: Observer,
    expected: Expected,
    sweeps: Sequence[Sweep],
    *,
    events_lost: int,
    gave_up: str | None = None,
) -> Verdict:
    """Judge a run by its last snapshot and the observer's records.

    ``gave_up``: why the run was given up, or None. If it was, unfinished work is not an additional
    problem.

    Raises:
        ValueError: nothing was observed.
    """
    snapshot = observer.latest
    if snapshot is None:
        raise ValueError("nothing was observed")
    longest = max((sweep["duration_seconds"] for sweep in sweeps), default=0.0)
    bound = observer.settings.stranded_grace_seconds + _longest_wait(sweeps) + longest
    waits = dict(_waits(snapshot))
    late = {what: seconds for what, seconds in waits.items() if seconds > bound}
    astray = dict(_astray(snapshot, expected))
    unsettled = [key for key in expected if not snapshot.is_settled(key)]
    twice = duplicates(snapshot.tasks)
    cases = {
        "a task exists twice": twice,
        "a regression was seen": observer.regressions,
        "a release came too early": list(observer.early.values()),
        f"a recovery took longer than {bound:.1f} s": [
            f"{what}: {seconds:.1f} s" for what, seconds in late.items()
        ],
    }
    other = [f"ran out of time: {gave_up}"]
    if gave_up is None:
        cases["a child did not end as it should"] = list(astray.values())
        cases["a parent was not settled"] = unsettled
        other = list(_nothing_shown(observer, sweeps, events_lost))
    return Verdict(
        orchestrations=len(expected),
        settled=len(expected) - len(unsettled),
        children=sum(len(ends) for ends in expected.values()),
        tasks=len(snapshot.tasks),
        events_lost=events_lost,
        stranded=len(observer.ever_stranded),
        recovered=len(observer.ever_stranded - astray.keys() - observer.stranded.keys()),
        duplicates=len(twice),
        regressions=len(observer.regressions),
        early_releases=len(observer.early),
        recovered_by=dict(sorted(Counter(each.code for each in snapshot.recoveries).items())),
        latency_max_seconds=max(waits.values(), default=None),
        latency_median_seconds=median(waits.values()) if waits else None,
        bound_seconds=bound,
        over_bound=len(late),
        sweeps=len(sweeps),
        sweep_longest_seconds=longest,
        out_of_time=gave_up is not None,
        problems=(*_listed(cases), *other),
    )


def _longest_wait(sweeps: Sequence[Sweep]) -> float:
    """Return the longest time between the starts of two sweeps, in seconds."""
    began = sorted(sweep["ended_at"] - sweep["duration_seconds"] for sweep in sweeps)
    return max((later - earlier for earlier, later in pairwise(began)), default=0.0)


def _waits(snapshot: Snapshot) -> Iterator[tuple[str, float]]:
    """Yield the subject of each repair of a child, and for how many seconds it had been due."""
    children = dict(snapshot.children())
    for recovery in snapshot.recoveries:
        child = children.get(recovery.child)
        if child is None or recovery.code == UNSETTLED:
            continue
        since = turn_came_at(snapshot, child)
        if recovery.code == Code.LOST_TERMINAL:
            task = snapshot.tasks.get(child.task_id or "")
            since = moment(task.finished_at) if task is not None else None
        if since is not None:
            what = f"{child.sub_issue_id} of {child.orchestration_id} ({recovery.code})"
            yield what, (recovery.at - since).total_seconds()


def _astray(snapshot: Snapshot, expected: Expected) -> Iterator[tuple[tuple[str, str], str]]:
    rows = dict(snapshot.children())
    for orchestration_id, ends in expected.items():
        for key, end in ends.items():
            row = rows.get((orchestration_id, key))
            if row is None or row.status is not end:
                state = row.raw_status if row is not None else "missing"
                name = f"{key} of {orchestration_id}"
                yield (orchestration_id, key), f"{name} is {state}, and should be {end}"


def _nothing_shown(observer: Observer, sweeps: Sequence[Sweep], events_lost: int) -> Iterator[str]:
    """Yield why a run has demonstrated nothing, if so."""
    if not events_lost:
        yield "no event was lost, so nothing was shown"
    elif not observer.ever_stranded:
        yield "nothing was stranded, so nothing was shown"
    if not sweeps:
        yield "no sweep was completed"


def _listed(cases: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the problems, at most ``MAX_SHOWN`` of each sort."""
    for what, found in cases.items():
        for case in found[:MAX_SHOWN]:
            yield f"{what}: {case}"
        if len(found) > MAX_SHOWN:
            yield f"{what}: and {len(found) - MAX_SHOWN} more"
