"""The verdict: one pure judgement over what was seen, and why it is what it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from statistics import median
from typing import Any

from reconciler.demo.observer import (
    ChildKey,
    Observer,
    Patience,
    Recovery,
    Snapshot,
    duplicates,
    turn_came_at,
)
from reconciler.domain.model import ChildStatus, moment

_SHOWN = 5
"""How many of one sort of problem are told one by one."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """One sweep's summary, as far as it is judged."""

    sweep_id: str
    complete: bool
    duration_seconds: float
    repairs: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a run. It is ``ok`` when nothing stands in ``problems``.

    Latencies are from the moment at which a child became due to the moment of its repair;
    ``bound_seconds`` is grace + interval + the longest sweep, and ``over_bound`` counts what took
    longer (for an abandoned claim the claim timeout stands in for the grace).
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
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that was promised held."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"ok": self.ok, **asdict(self), "problems": list(self.problems)}


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised: the settings that the bound is made of."""

    patience: Patience
    interval: timedelta


def judge(
    observer: Observer,
    expected: Mapping[str, Mapping[str, ChildStatus]],
    sweeps: Sequence[Sweep],
    promise: Promise,
    *,
    events_lost: int,
) -> Verdict:
    """Judge a run by its last snapshot and what the observer remembers.

    ``expected``: orchestration id → sub-issue id → the end that its blueprint asks for.

    Raises:
        ValueError: the observer has seen nothing.
    """
    snapshot = observer.latest
    if snapshot is None:
        msg = "nothing was observed"
        raise ValueError(msg)
    longest = max((sweep.duration_seconds for sweep in sweeps), default=0.0)
    latencies = dict(_latencies(snapshot))
    bounds = {recovery: _bound(recovery, promise, longest) for recovery in latencies}
    late = [recovery for recovery, seconds in latencies.items() if seconds > bounds[recovery]]
    astray = list(_astray(snapshot, expected))
    unsettled = [
        orchestration_id
        for orchestration_id in expected
        if (found := snapshot.orchestrations.get(orchestration_id)) is None
        or found.meta is None
        or not found.meta.settled
    ]
    left_behind = observer.ever_stranded & {key for key, _ in astray} | set(observer.stranded)
    twice = duplicates(snapshot.tasks)
    problems = [
        *_shown("a task exists twice", twice),
        *_shown("a regression was seen", observer.regressions),
        *_shown("a release came too early", list(observer.early.values())),
        *_shown("a child did not end as it should", [sentence for _, sentence in astray]),
        *_shown("still stranded", [" ".join(key) for key in sorted(observer.stranded)]),
        *_shown("a parent was not settled", unsettled),
        *_shown(
            "a recovery took longer than the bound",
            [f"{r.child[1]} {latencies[r]:.1f} s > {bounds[r]:.1f} s ({r.code})" for r in late],
        ),
        *_shown("a sweep was not complete", [s.sweep_id for s in sweeps if not s.complete]),
        *_nothing_proved(observer, sweeps, events_lost),
    ]
    return Verdict(
        orchestrations=len(expected),
        settled=len(expected) - len(unsettled),
        children=sum(len(ends) for ends in expected.values()),
        tasks=len(snapshot.tasks),
        events_lost=events_lost,
        stranded=len(observer.ever_stranded),
        recovered=len(observer.ever_stranded - left_behind),
        duplicates=len(twice),
        regressions=len(observer.regressions),
        early_releases=len(observer.early),
        recovered_by=dict(sorted(Counter(r.code for r in snapshot.recoveries).items())),
        latency_max_seconds=max(latencies.values(), default=None),
        latency_median_seconds=median(latencies.values()) if latencies else None,
        bound_seconds=(promise.patience.grace + promise.interval).total_seconds() + longest,
        over_bound=len(late),
        sweeps=len(sweeps),
        sweep_longest_seconds=longest,
        problems=tuple(problems),
    )


def _latencies(snapshot: Snapshot) -> Iterator[tuple[Recovery, float]]:
    """Yield how long after it became due each child was repaired, in seconds."""
    for recovery in snapshot.recoveries:
        orchestration = snapshot.orchestrations.get(recovery.child[0])
        child = orchestration.children.get(recovery.child[1]) if orchestration else None
        if child is None or recovery.code == "unsettled_parent":
            continue
        if recovery.code == "lost_terminal":
            task = snapshot.tasks.get(child.task_id or "")
            since = moment(task.finished_at) if task is not None else None
        else:
            since = turn_came_at(snapshot, child)
        if since is not None:
            yield recovery, (recovery.at - since).total_seconds()


def _bound(recovery: Recovery, promise: Promise, longest_sweep_seconds: float) -> float:
    patience = promise.patience
    claimed = recovery.code == "abandoned_claim"
    first = patience.claim_timeout if claimed else patience.grace
    return (first + promise.interval).total_seconds() + longest_sweep_seconds


def _astray(
    snapshot: Snapshot, expected: Mapping[str, Mapping[str, ChildStatus]]
) -> Iterator[tuple[ChildKey, str]]:
    for orchestration_id, ends in expected.items():
        orchestration = snapshot.orchestrations.get(orchestration_id)
        for key, end in ends.items():
            row = orchestration.children.get(key) if orchestration is not None else None
            if row is None or row.status is not end:
                state = row.raw_status if row is not None else "missing"
                name = f"{key} of {orchestration_id}"
                yield (orchestration_id, key), f"{name} is {state}, and should be {end}"


def _nothing_proved(observer: Observer, sweeps: Sequence[Sweep], events_lost: int) -> Iterator[str]:
    """A run in which nothing went wrong on the platform's side shows nothing."""
    if not events_lost:
        yield "no event was lost, so nothing was shown"
    elif not observer.ever_stranded:
        yield "nothing was stranded, so nothing was shown"
    if not sweeps:
        yield "no sweep was completed"


def _shown(what: str, cases: Sequence[str]) -> Iterator[str]:
    for case in cases[:_SHOWN]:
        yield f"{what}: {case}"
    if len(cases) > _SHOWN:
        yield f"{what}: and {len(cases) - _SHOWN} more"
