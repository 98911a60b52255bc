"""The verdict: one pure judgement over what was seen, and why it is what it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from reconciler.demo.observer import (
    UNSETTLED,
    Cause,
    ChildKey,
    Observer,
    Patience,
    Recovery,
    Snapshot,
    duplicates,
    turn_came_at,
)
from reconciler.domain.codes import Code
from reconciler.domain.model import Child, ChildStatus, moment

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
    ``bound_seconds`` is grace + the wait for a sweep + the longest sweep, and ``over_bound`` counts
    what took longer. For an abandoned claim the claim timeout stands in for the grace, and for a
    task that was never started the start timeout.
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
    waits = list(_waits(observer, snapshot))
    bounds = {cause: _bound(cause, promise, longest) for cause in Cause}
    late = [wait for wait in waits if wait.seconds > bounds[wait.cause]]
    astray = list(_astray(snapshot, expected))
    unsettled = list(_unsettled(snapshot, expected))
    left_behind = observer.ever_stranded & {key for key, _ in astray} | set(observer.stranded)
    twice = duplicates(snapshot.tasks)
    problems = [
        *_shown("a task exists twice", twice),
        *_shown("a regression was seen", observer.regressions),
        *_shown("a release came too early", list(observer.early.values())),
        *_shown("a child did not end as it should", [sentence for _, sentence in astray]),
        *_shown("still stranded", [" ".join(key) for key in sorted(observer.stranded)]),
        *_shown("a parent was not settled", unsettled),
        *_shown("a recovery took longer than the bound", [w.told(bounds[w.cause]) for w in late]),
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
        latency_max_seconds=max((wait.seconds for wait in waits), default=None),
        latency_median_seconds=median(wait.seconds for wait in waits) if waits else None,
        bound_seconds=bounds[Cause.EVENT],
        over_bound=len(late),
        sweeps=len(sweeps),
        sweep_longest_seconds=longest,
        problems=tuple(problems),
    )


@dataclass(frozen=True, slots=True)
class _Wait:
    """How long after it became due a child was repaired, and for want of what it was due."""

    recovery: Recovery
    cause: Cause
    seconds: float

    def told(self, bound_seconds: float) -> str:
        orchestration_id, sub_issue_id = self.recovery.child
        took = f"{self.seconds:.1f} s > {bound_seconds:.1f} s"
        return f"{sub_issue_id} of {orchestration_id} ({self.recovery.code}): {took}"


def _waits(observer: Observer, snapshot: Snapshot) -> Iterator[_Wait]:
    for recovery in snapshot.recoveries:
        orchestration = snapshot.orchestrations.get(recovery.child[0])
        child = orchestration.children.get(recovery.child[1]) if orchestration else None
        if child is None or recovery.code == UNSETTLED:
            continue
        cause, since = _was_due(observer, snapshot, recovery, child)
        if since is not None:
            yield _Wait(recovery, cause, (recovery.at - since).total_seconds())


def _was_due(
    observer: Observer, snapshot: Snapshot, recovery: Recovery, child: Child
) -> tuple[Cause, datetime | None]:
    """Return for want of what, and since when, a child was due before it was repaired."""
    task = snapshot.tasks.get(child.task_id or "")
    if recovery.code == Code.LOST_TERMINAL:
        return Cause.EVENT, moment(task.finished_at) if task is not None else None
    if recovery.code == Code.UNSTARTED_TASK:
        return Cause.START, moment(task.created_at) if task is not None else None
    claimed_at = observer.claimed_at.get(recovery.child)
    if claimed_at is not None and claimed_at <= recovery.at:
        return Cause.CLAIM, claimed_at
    return Cause.EVENT, turn_came_at(snapshot, child)


def _bound(cause: Cause, promise: Promise, longest_sweep_seconds: float) -> float:
    """How long a recovery may take.

    Sweeps do not overlap. What a scan has just passed waits for the next one, which begins an
    interval after this one began; where a sweep takes several intervals, as many of them.
    """
    interval = promise.interval.total_seconds()
    waited = interval * max(1, math.ceil(longest_sweep_seconds / interval))
    return promise.patience.with_cause(cause).total_seconds() + waited + longest_sweep_seconds


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


def _unsettled(snapshot: Snapshot, expected: Iterable[str]) -> Iterator[str]:
    for orchestration_id in expected:
        found = snapshot.orchestrations.get(orchestration_id)
        if found is None or found.meta is None or not found.meta.settled:
            yield orchestration_id


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
