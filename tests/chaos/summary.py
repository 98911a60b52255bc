"""The summary of a run, and the problems in it, computed from what was observed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler.demo.observer import ChildKey, Observer, Snapshot, duplicates
from reconciler.domain.graph import dependents_of, reachable
from reconciler.domain.model import ChildStatus, Task

_SHOWN = 5

MAX_UNHEARD = 3
"""Touches of a parent that nobody heard; chaos does not wait long enough for another one."""


@dataclass(frozen=True)
class Bound:
    """The time allowed for recovery after all faults have ended (``calm_at``)."""

    calm_at: datetime
    allowed: timedelta

    def over(self, observer: Observer) -> Iterator[ChildKey]:
        """Yield the children that are stranded for longer than that in the latest snapshot."""
        if observer.latest is None:
            return
        for key, since in observer.stranded.items():
            if observer.latest.at - max(since, self.calm_at) > self.allowed:
                yield key


_KILLED_AT_ITS_START = "Could not start worker processes"
"""Celery ends a worker if one of its processes is killed while it starts. It is started again, as
after every other kill."""


@dataclass(frozen=True)
class Run:
    """The parameters of a run, and what was observed.

    ``lost``: the terminal records that the live reconciler did not get. ``shown_unsettled``: the
    orchestrations that operators see as unsettled. ``never_started``: the tasks that the platform
    failed because no invocation of them arrived. ``exits``: the last words of processes that ended
    by themselves. ``false_healthy``, ``false_complete``: claims that something had been looked at,
    although it had not.
    """

    seed: int
    seconds: float
    observer: Observer
    expected: Mapping[str, Mapping[str, ChildStatus]]
    faults: Mapping[str, int]
    sweeps: int
    incomplete_sweeps: int
    lost: Sequence[Task]
    shown_unsettled: frozenset[str]
    never_started: frozenset[str]
    exits: Sequence[str]
    unrecovered: frozenset[ChildKey]
    bound_seconds: float
    recovered_in_seconds: float
    claims_checked: int = 0
    false_healthy: Sequence[str] = ()
    false_complete: Sequence[str] = ()

    @property
    def last(self) -> Snapshot:
        """The tables at the end."""
        assert self.observer.latest is not None
        return self.observer.latest

    def problems(self) -> list[str]:
        """Return a sentence for each thing that must not happen."""
        observer = self.observer
        found: list[str] = []
        for what, cases in {
            "there are two tasks under one key": duplicates(self.last.tasks),
            "no row knows of a task": self._unknown_tasks(),
            "a regression": observer.regressions,
            "released too early": list(observer.early.values()),
            "not recovered within the bound": [" ".join(key) for key in sorted(self.unrecovered)],
            "ended by itself": [said for said in self.exits if _KILLED_AT_ITS_START not in said],
            "said to be healthy": self.false_healthy,
            "said to be complete": self.false_complete,
            "did not end as it should": [sentence for _, sentence in self._strays()],
            "its parent was not settled": list(self._unsettled()),
        }.items():
            found += [f"{what}: {case}" for case in cases[:_SHOWN]]
            if len(cases) > _SHOWN:
                found.append(f"{what}: and {len(cases) - _SHOWN} more")
        if not self.last.recoveries:
            found.append("nothing had to be repaired, so nothing was shown")
        return found

    def counts(self) -> dict[str, int]:
        """Return how often each thing happened that must never happen."""
        return {
            "duplicates": len(duplicates(self.last.tasks)),
            "regressions": len(self.observer.regressions),
            "early releases": len(self.observer.early),
            "unrecovered": len(self.unrecovered | dict(self._strays()).keys()),
            "false healthy": len(self.false_healthy),
            "false complete": len(self.false_complete),
        }

    def lines(self) -> Iterator[str]:
        """Yield the summary, for people."""
        observer, last = self.observer, self.last
        codes = Counter(recovery.code for recovery in last.recoveries)
        children = sum(len(ends) for ends in self.expected.values())
        yield f"seed {self.seed}: {self.seconds:.0f} s of faults, then calm"
        yield f"faults injected: {sum(self.faults.values())}"
        yield from (f"  {count:5} {name}" for name, count in sorted(self.faults.items()))
        yield (
            f"orchestrations {len(self.expected)}, children {children}, tasks {len(last.tasks)}, "
            f"of them released by us {sum(task.ours for task in last.tasks.values())}"
        )
        yield f"repairs {sum(codes.values())}: " + ", ".join(
            f"{code} {count}" for code, count in sorted(codes.items())
        )
        yield f"ever stranded {len(observer.ever_stranded)}, looked at {observer.samples} times"
        yield f"sweeps {self.sweeps}, of them incomplete {self.incomplete_sweeps}"
        yield f"failed by the platform, both invocations lost: {len(self.never_started)}"
        killed = sum(_KILLED_AT_ITS_START in said for said in self.exits)
        yield f"workers that ended because a process was killed at its start: {killed}"
        yield f"ended by themselves: {len(self.exits) - killed}"
        yield ", ".join(f"{name} {count}" for name, count in self.counts().items())
        yield f"(unrecovered: for more than {self.bound_seconds:.0f} s after the last fault)"
        yield f"need manual action, {MAX_UNHEARD} nudges unheard: {len(self._given_up())}"
        yield f"everything had recovered {self.recovered_in_seconds:.0f} s after the last fault"

    def settled(self) -> bool:
        """Whether everything has reached its end."""
        return not any(self._strays()) and not any(self._unsettled())

    def _unknown_tasks(self) -> list[str]:
        known = {child.task_id for _, child in self.last.children()}
        return sorted(self.last.tasks.keys() - known)

    def _strays(self) -> Iterator[tuple[ChildKey, str]]:
        for orchestration_id, ends in self.expected.items():
            rows = self.last.orchestrations[orchestration_id].children
            unlucky = {key for key, row in rows.items() if row.task_id in self.never_started}
            behind = reachable(unlucky, dependents_of({k: r.depends_on for k, r in rows.items()}))
            for key, expected in ends.items():
                end = expected
                if key in behind:
                    end = ChildStatus.FAILED if key in unlucky else ChildStatus.SKIPPED
                if rows[key].status is not end:
                    state, name = rows[key].raw_status, f"{key} of {orchestration_id}"
                    yield (orchestration_id, key), f"{name} is {state}, and should be {end}"

    def _unsettled(self) -> Iterator[str]:
        given_up = self._given_up()
        for orchestration_id in self.expected:
            meta = self.last.orchestrations[orchestration_id].meta
            if (meta is None or not meta.settled) and orchestration_id not in given_up:
                yield orchestration_id

    def _given_up(self) -> frozenset[str]:
        """Return the orchestrations that may stay unsettled: touched three times, unheard, shown.

        Faults may take the live reconciler away every time that a task is touched.
        """
        unheard = {(task.task_id, task.nudge_count) for task in self.lost}
        return frozenset(
            orchestration_id
            for orchestration_id in self.shown_unsettled & self.expected.keys()
            if any(
                all((child.task_id, count + 1) in unheard for count in range(MAX_UNHEARD))
                for child in self.last.orchestrations[orchestration_id].children.values()
            )
        )
