"""At some points the code under test declares what it still knows.

An actor's state is everything that it was told. At the points below it knows less than that: what
it learnt about one child does not matter for the next one, except for what its attributes keep.
Declaring that joins states that have the same future. So the number of schedules stays exactly the
same; ``test_interleavings.py`` compares the two.

Every attribute counts unless it is named here. So a new attribute can only add states, and never
joins states that differ.
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
"""Attributes that are only reported at the end; before, it only matters whether they are empty."""


class RememberingPass(RepairPass):
    """A pass that declares its knowledge before each of its parts."""

    port: Port
    _left: list[Action]
    _fingerprint: str | None
    """The fingerprint of the rows as read; a recorded failure counts against these rows."""

    @classmethod
    def of(cls, work: RepairPass, port: Port) -> RememberingPass:
        """Return a new pass as one that declares its knowledge."""
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
        """Read once more. Nothing is written afterwards, so only the tasks that are read matter."""
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
    """Return the parts of an unordered value in a fixed order."""
    if isinstance(value, dict):
        return sorted(value.items())
    return sorted(value) if isinstance(value, set) else value


@dataclass(frozen=True, slots=True)
class RememberingEvaluator(Evaluator):
    """An evaluator whose passes declare their knowledge."""

    port: Port

    @classmethod
    def of(cls, evaluator: Evaluator, port: Port) -> RememberingEvaluator:
        """Return an evaluator as one whose passes declare their knowledge."""
        return cls(**{f.name: getattr(evaluator, f.name) for f in fields(evaluator)}, port=port)

    def _pass(
        self, orchestration: Orchestration, context: Context, dispatch: ReleaseDispatch | None
    ) -> RepairPass:
        work = Evaluator._pass(self, orchestration, context, dispatch)
        return RememberingPass.of(work, self.port)


class Live(LiveReconciler):
    """Today's live reconciler; it declares its knowledge before each release."""

    port: Port
    own_seed: int
    _rows: Sequence[Child] = ()

    def _skip_doomed(self, orchestration: Orchestration) -> list[Child]:
        rows = super()._skip_doomed(orchestration)
        self._rows = rows
        return rows

    def release(self, orchestration: Orchestration, child: Child) -> None:
        """Release one child, after declaring what is known."""
        # The ids do not depend on how many came before, so nobody has to remember that number.
        self._rng = Random(f"{self.own_seed}/{child.sub_issue_id}")  # noqa: S311 - a schedule
        self.port.remember((child.sub_issue_id, orchestration, self._rows))
        self._act(orchestration, child)

    def _act(self, orchestration: Orchestration, child: Child) -> None:
        super().release(orchestration, child)


class OlderLive(Live):
    """The older live reconciler: it creates and starts the task, then updates the row.

    A crash in between leaves a task that its row does not know; a rival in between makes two.
    """

    def _act(self, orchestration: Orchestration, child: Child) -> None:
        """Release one child; the task exists before any row names it."""
        task = self._find_or_create(orchestration, child)
        if task is None:
            return
        self.invoke(task["task_id"]["S"])
        self._flip(child, task, ChildStatus.BLOCKED, ChildStatus.READY)
