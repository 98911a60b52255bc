"""The context of a piece of work, and its results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.clock import OutOfTime, never
from reconciler.domain.codes import Code, OrchestrationCode
from reconciler.domain.diagnosis import ChildDiagnosis, Diagnosis
from reconciler.domain.model import Child, Orchestration, Task, seconds_since
from reconciler.domain.outcomes import REPAIRED, Outcome
from reconciler.domain.planning import Action
from reconciler.errors import ReconcilerError, error_kind
from reconciler.repair.counts import Counts, counted_as

BY_HAND = "by-hand:"
"""Prefix of the sweep id for work that a person asked for. No sweep counts such work."""


@dataclass(frozen=True, slots=True)
class Context:
    """On whose behalf work is done, and within which limits.

    ``apply``: False only plans and writes nothing. ``by_hand``: a person asked for it, so backoff
    does not apply. ``alone``: no sibling of the child is being released at the same time.
    ``out_of_time``: asked between actions; the rest is left to the next evaluation.
    """

    now: datetime
    sweep_id: str
    by_hand: bool = False
    apply: bool = True
    alone: bool = False
    out_of_time: OutOfTime = never


MAX_PREDECESSORS_AT_ONCE = 98
"""One request reads 100 rows: these, the child and the meta row."""


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """A release to be made by another task.

    ``depends_on`` is a hint that saves reading the whole orchestration. It is None if there are too
    many predecessors for one request. ``alone``: as far as is known, no sibling is being released
    at the same time.
    """

    orchestration_id: str
    sub_issue_id: str
    idempotency_key: str
    depends_on: tuple[str, ...] | None
    due_since: datetime | None
    sweep_id: str
    alone: bool = False

    @classmethod
    def of(cls, child: Child, due_since: datetime | None, sweep_id: str) -> ReleaseRequest:
        """Return the request to release ``child``."""
        few = len(child.depends_on) <= MAX_PREDECESSORS_AT_ONCE
        return cls(
            orchestration_id=child.orchestration_id,
            sub_issue_id=child.sub_issue_id,
            idempotency_key=child.idempotency_key,
            depends_on=child.depends_on if few else None,
            due_since=due_since,
            sweep_id=sweep_id,
        )


ReleaseDispatch = Callable[[ReleaseRequest], bool]
"""Hands a release on; False if there is no room now, and a later sweep finds it again."""


def name_state(key: str, predecessor: Child | None) -> str:
    """Return the state of a predecessor as text: why its dependent cannot go ahead."""
    return f"predecessor {key} is {'missing' if predecessor is None else predecessor.raw_status}"


@dataclass(frozen=True, slots=True)
class RepairResult:
    """How a repair ended.

    ``child``: its row after the repair; None if the row is gone. ``task``: the task concerned.
    ``applied``: False if it was only planned. ``warnings``: what was left out of the task.
    ``error``: what failed, either the repair or the pipeline invocation after a release.
    ``counts`` and ``stuck`` are set for a single release: what it adds to the sweep's counts, with
    the repairs that followed from it, and whether it leaves the child stuck.
    """

    outcome: Outcome
    child: Child | None = None
    task: Task | None = None
    detail: str = ""
    applied: bool = True
    warnings: tuple[str, ...] = ()
    error: BaseException | None = None
    counts: Counts = field(default_factory=Counts)
    stuck: tuple[Stuck, ...] = ()

    @property
    def task_id(self) -> str | None:
        """The id of the task concerned; by default the one that the child's row names."""
        if self.task is not None:
            return self.task.task_id
        return self.child.task_id if self.child is not None else None

    @property
    def repaired(self) -> bool:
        """Whether this repair made progress on the child."""
        return self.applied and self.outcome in REPAIRED

    @property
    def settled(self) -> bool:
        """Whether the child was repaired or refused, so that no earlier finding holds."""
        return self.repaired or (self.applied and self.outcome is Outcome.REFUSED)


@dataclass(frozen=True, slots=True)
class ActionOutcome:
    """How one action ended; ``applied`` is False if it was only planned."""

    verb: str
    sub_issue_id: str
    code: str
    outcome: Outcome
    applied: bool
    task_id: str | None = None
    detail: str = ""
    stranded_seconds: float | None = None
    error_kind: str | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, action: Action, result: RepairResult, context: Context) -> ActionOutcome:
        """Combine ``action`` and its ``result`` for logs and counts."""
        made_up_for = result.outcome is Outcome.REINVOKED
        return cls(
            verb=action.verb,
            sub_issue_id=action.sub_issue_id,
            code=str(Code.UNSTARTED_TASK if made_up_for else action.code),
            outcome=result.outcome,
            applied=context.apply and result.applied,
            task_id=result.task_id,
            detail=result.detail,
            stranded_seconds=seconds_since(action.since, context.now),
            error_kind=error_kind(result.error) if result.error is not None else None,
            warnings=result.warnings,
        )

    @property
    def repaired(self) -> bool:
        """Whether this action made progress on the child."""
        return self.applied and self.outcome in REPAIRED

    @property
    def planned(self) -> bool:
        """Whether it would have changed the child."""
        return not self.applied and self.outcome in {*REPAIRED, Outcome.REFUSED}


@dataclass(frozen=True, slots=True)
class Stuck:
    """A stuck child, or a stuck orchestration if ``sub_issue_id`` is None.

    ``needs_action``: the reconciler cannot resolve it.
    """

    orchestration_id: str
    sub_issue_id: str | None
    code: str
    reason: str
    age_seconds: float | None
    task_id: str | None = None
    needs_action: bool = False


def count_outcomes(outcomes: Iterable[ActionOutcome]) -> Counts:
    """Count what was done, planned or failed."""
    done: Counter[str] = Counter()
    planned: Counter[str] = Counter()
    for action in outcomes:
        name = counted_as(action.verb, action.outcome)
        if name is not None:
            into = done if action.applied or name == "errors" else planned
            into[name] += 1
        if action.error_kind is not None and name != "errors":
            # The release succeeded, but the pipeline invocation after it failed.
            done["errors"] += 1
    return Counts.from_flat(done) + Counts(planned=planned)


def count_stuck(stuck: Iterable[Stuck]) -> Counts:
    """Count stuck entries by code, with the age of the oldest of each."""
    counts: Counter[str] = Counter()
    oldest: dict[str, float] = {}
    for entry in stuck:
        counts[entry.code] += 1
        oldest[entry.code] = max(oldest.get(entry.code, 0.0), entry.age_seconds or 0.0)
    return Counts(stuck=counts, oldest_stuck_seconds=oldest)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The diagnosis before (``found``) and after (``now``), and what was done in between.

    ``mistake``: an error that affects all orchestrations and that only an operator can fix.
    """

    orchestration_id: str
    found: Diagnosis | None
    now: Diagnosis | None
    actions: tuple[ActionOutcome, ...]
    counts: Counts
    stuck: tuple[Stuck, ...] = ()
    withheld: str | None = None
    orchestration: Orchestration | None = None
    mistake: ReconcilerError | None = None

    @classmethod
    def without_diagnosis(cls, stuck: Stuck, errors: int = 0) -> Evaluation:
        """Return the evaluation of an orchestration that could not be diagnosed."""
        counts = Counts(orchestrations_evaluated=1, errors=errors) + count_stuck([stuck])
        return cls(stuck.orchestration_id, None, None, (), counts, (stuck,))

    @property
    def code(self) -> OrchestrationCode | None:
        """The orchestration's current code; None if there is no diagnosis."""
        return self.now.code if self.now is not None else None

    @property
    def children(self) -> tuple[ChildDiagnosis, ...]:
        """The current diagnoses of the unfinished children."""
        return tuple(self.now.children.values()) if self.now is not None else ()


@dataclass(frozen=True, slots=True)
class Pacer:
    """Slows down releases; by default, not at all.

    ``acquire`` waits briefly for permission to release and returns False if it would take too long.
    ``lock`` serialises releases that share a row (of an orchestration, or of a user). DynamoDB
    rejects concurrent transactions on one row, so they would all have to be retried. Correctness
    never depends on the lock: whoever has waited too long goes ahead.
    """

    acquire: Callable[[], bool] = lambda: True
    lock: Callable[[str], AbstractContextManager[object]] = nullcontext
