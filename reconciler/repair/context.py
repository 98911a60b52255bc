"""What a piece of work is done for, and what comes of it."""

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
"""How the id begins of what a person asked for. It is no sweep's, so nothing is counted for it."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a piece of work is done for.

    ``apply``: False plans only, and writes nothing. ``by_hand``: a person asked for it, so no
    quarantine holds it up. ``alone``: no other child of the orchestration is released beside it.
    ``out_of_time``: asked between actions; the rest is left for the next evaluation.
    """

    now: datetime
    sweep_id: str
    by_hand: bool = False
    apply: bool = True
    alone: bool = False
    out_of_time: OutOfTime = never


MAX_PREDECESSORS_AT_ONCE = 98
"""How many can be read with their child and the meta row in one request."""


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """A release to be made elsewhere.

    ``depends_on`` is a hint that saves reading the rest; None where there are so many that all of
    it is read anyway, and the message would only be large. ``alone``: no other child of the
    orchestration is released beside it, as far as is known.
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
"""Hands a release on; False when there is no room for it now, and a later sweep finds it again."""


def name_state(key: str, predecessor: Child | None) -> str:
    """Say what state a predecessor is in, where that stands in the way of its dependent."""
    return f"predecessor {key} is {'missing' if predecessor is None else predecessor.raw_status}"


@dataclass(frozen=True, slots=True)
class RepairResult:
    """How a repair ended.

    ``child``: its row as it stands now, as far as the write told; None where the row is gone.
    ``task``: the one that it is about. ``applied`` is False where it was only planned.
    ``warnings``: what was left out of the task, for the log. ``error``: what failed: the repair
    itself, or after a release the invocation of its pipeline. ``counts``: what a release by its
    key adds to a sweep, with everything that it brought on. ``stuck``: how such a release leaves
    its child, if it does not bring it on.
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
        """The task that it is about, or else the one that the child's row names."""
        if self.task is not None:
            return self.task.task_id
        return self.child.task_id if self.child is not None else None

    @property
    def repaired(self) -> bool:
        """Whether the child was brought on, by us."""
        return self.applied and self.outcome in REPAIRED

    @property
    def settled(self) -> bool:
        """Whether it was brought on or refused for good, so that no earlier finding holds."""
        return self.repaired or (self.applied and self.outcome is Outcome.REFUSED)


@dataclass(frozen=True, slots=True)
class ActionOutcome:
    """What came of one planned action; ``applied`` is False where it was only planned."""

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
        """Return what came of ``action``, as it is told and counted."""
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
        """Whether something was changed, by us, that brings the child on."""
        return self.applied and self.outcome in REPAIRED


@dataclass(frozen=True, slots=True)
class Stuck:
    """A child, or with ``sub_issue_id`` None an orchestration, that is stuck and not repaired.

    ``needs_action``: the reconciler does nothing that could resolve it.
    """

    orchestration_id: str
    sub_issue_id: str | None
    code: str
    reason: str
    age_seconds: float | None
    task_id: str | None = None
    needs_action: bool = False


def count_outcomes(outcomes: Iterable[ActionOutcome]) -> Counts:
    """Count what was done, or would have been, and what failed."""
    done: Counter[str] = Counter()
    planned: Counter[str] = Counter()
    for action in outcomes:
        name = counted_as(action.verb, action.outcome)
        if name is not None:
            into = done if action.applied or name == "errors" else planned
            into[name] += 1
        if action.error_kind is not None and name != "errors":
            # The release stands; what failed is the invocation after it.
            done["errors"] += 1
    return Counts.from_flat(done) + Counts(planned=planned)


def count_stuck(stuck: Iterable[Stuck]) -> Counts:
    """Count what is stuck by code, with the age of the oldest of each."""
    counts: Counter[str] = Counter()
    oldest: dict[str, float] = {}
    for entry in stuck:
        counts[entry.code] += 1
        oldest[entry.code] = max(oldest.get(entry.code, 0.0), entry.age_seconds or 0.0)
    return Counts(stuck=counts, oldest_stuck_seconds=oldest)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An orchestration as it was found (``found``), what was done, and how it stands now.

    ``mistake``: an error that only an operator can mend, which holds for all orchestrations.
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
        """Return how an orchestration stands of which not even a diagnosis can be had."""
        counts = Counts(orchestrations_evaluated=1, errors=errors) + count_stuck([stuck])
        return cls(stuck.orchestration_id, None, None, (), counts, (stuck,))

    @property
    def code(self) -> OrchestrationCode | None:
        """The orchestration's code as it stands now; None when it has no rows."""
        return self.now.code if self.now is not None else None

    @property
    def children(self) -> tuple[ChildDiagnosis, ...]:
        """The non-terminal children as they stand now."""
        return tuple(self.now.children.values()) if self.now is not None else ()


@dataclass(frozen=True, slots=True)
class Pacer:
    """How releases are slowed down; without arguments, not at all.

    ``acquire``: waits a little for a turn, and returns False when it would take too long.
    ``lock``: keeps others from releasing what shares a row (of an orchestration, or of a user) for
    as long as the block lasts. DynamoDB refuses transactions that meet on a row, so each would be
    sent several times. Correctness never depends on it: who has waited for long goes ahead.
    """

    acquire: Callable[[], bool] = lambda: True
    lock: Callable[[str], AbstractContextManager[object]] = nullcontext
