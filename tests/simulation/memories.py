"""What the code under test still knows at some points of its course, said outright.

Where an actor stands is what it was told, all of it. At the points below that is more than it
knows: what it learnt of one child is of no account to what it does with the next, but for what it
keeps in its attributes. To say so joins states that have the same future. So the number of
schedules stays what it was, to the last one; ``test_interleavings.py`` compares the two.

An attribute counts unless it is named here: a new one can make states more, and join none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from random import Random

from reconciler.demo.live import LiveReconciler
from reconciler.domain.model import Child, ChildStatus, Orchestration
from reconciler.domain.planning import Action, Plan, Release
from reconciler.repair.context import Context, ReleaseDispatch
from reconciler.repair.evaluator import Evaluator
from reconciler.repair.repair_pass import RepairPass
from tests.simulation.actors import Port

_COLLABORATORS = frozenset(
    {
        "_budget_store",
        "_dispatch",
        "_first_failures",
        "_orchestrations",
        "_parts",
        "_policy",
        "_task_store",
        "port",
        "seen",
    }
)
_TOLD = frozenset({"found", "now", "outcomes"})
"""What is only told afterwards: of these nothing is asked but whether there are any."""


class RememberingPass(RepairPass):
    """A pass that says what it knows before each of its parts."""

    port: Port
    _left: list[Action]
    _fingerprint: str | None
    """Of the rows as they were read: a failure that is on record is held against those."""

    @classmethod
    def of(cls, work: RepairPass, port: Port) -> RememberingPass:
        """Return a pass that has not begun yet as one that says what it knows."""
        failed_before = work.seen.orchestration.attempts is not None
        remembering = cls.__new__(cls)
        vars(remembering).update(vars(work))
        remembering.port = port
        remembering._left = []
        remembering._fingerprint = work.seen.orchestration.fingerprint if failed_before else None
        return remembering

    def _plan(self) -> Plan:
        self._says("plan")
        return super()._plan()

    def _act(self, actions: list[Action]) -> None:
        self._left = list[Action](actions)
        super()._act(actions)

    def _act_on(self, action: Action) -> None:
        if action in self._left:
            self._left = self._left[self._left.index(action) + 1 :]
        self._says(action)
        super()._act_on(action)

    def _release_all(self, releases: list[Release]) -> None:
        self._left = list[Action](releases)
        super()._release_all(releases)

    def finish(self) -> None:
        """Read once more: nothing is written after that, and which tasks are read is all."""
        if self.stale and self.context.apply:
            seen = self.seen
            self.port.remember((seen.orchestration.orchestration_id, sorted(seen._asked)))
        super().finish()

    def _says(self, doing: object) -> None:
        told = [bool(getattr(self, name)) for name in sorted(_TOLD)]
        known = [
            (name, _in_order(value))
            for name, value in sorted({**vars(self.seen), **vars(self)}.items())
            if name not in _COLLABORATORS | _TOLD
        ]
        roots = _in_order(self._first_failures._roots)
        self.port.remember((doing, told, known, roots))


def _in_order(value: object) -> object:
    """Return the parts of what has none in an order of their own."""
    if isinstance(value, dict):
        return sorted(value.items())
    return sorted(value) if isinstance(value, set) else value


@dataclass(frozen=True, slots=True)
class RememberingEvaluator(Evaluator):
    """An evaluator whose passes say what they know."""

    port: Port

    @classmethod
    def of(cls, evaluator: Evaluator, port: Port) -> RememberingEvaluator:
        """Return an evaluator as one whose passes say what they know."""
        return cls(**{f.name: getattr(evaluator, f.name) for f in fields(evaluator)}, port=port)

    def _pass(
        self, orchestration: Orchestration, context: Context, dispatch: ReleaseDispatch | None
    ) -> RepairPass:
        work = Evaluator._pass(self, orchestration, context, dispatch)
        return RememberingPass.of(work, self.port)


class Live(LiveReconciler):
    """Today's live reconciler, which says what it knows before each release."""

    port: Port
    own_seed: int
    _rows: Sequence[Child] = ()

    def _skip_doomed(self, orchestration: Orchestration) -> list[Child]:
        rows = super()._skip_doomed(orchestration)
        self._rows = rows
        return rows

    def _release(self, orchestration: Orchestration, child: Child) -> None:
        # Ids that do not depend on how many were made before: so they are not to be remembered.
        self._rng = Random(f"{self.own_seed}/{child.sub_issue_id}")  # noqa: S311 - a schedule
        self.port.remember((child.sub_issue_id, orchestration, self._rows))
        super()._release(orchestration, child)


class OlderLive(Live):
    """The older one: creates and starts the task, then flips the row.

    A crash in between leaves a task whose row does not know of it; a rival in between makes two.
    """

    def release(self, orchestration: Orchestration, child: Child) -> None:
        """Release one child; the task is there before anything says so."""
        task = self._find_or_create(orchestration, child)
        if task is None:
            return
        self.invoke(task["task_id"]["S"])
        self._flip(child, task, ChildStatus.BLOCKED, ChildStatus.READY)
