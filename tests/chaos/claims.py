"""Compare what the backstop claims with what the observer sees.

If a stranded child was overdue before the time that a claim covers, and is neither known stuck nor
waiting, then nobody has looked at it, and *healthy* or *complete* claims too much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from reconciler.cli.status import Status
from reconciler.demo.observer import ChildKey, Observer, due_since
from reconciler.settings import Settings
from reconciler.sweeping.overview import Overview
from reconciler.sweeping.segments import Scope


@dataclass
class Claims:
    """``false_healthy`` and ``false_complete``: child → the false claim about it.

    ``margin``: more than the difference between the clocks of any two hosts.
    """

    settings: Settings
    margin: timedelta
    checked: int = 0
    false_healthy: dict[ChildKey, str] = field(default_factory=dict)
    false_complete: dict[ChildKey, str] = field(default_factory=dict)

    def check(self, overview: Overview, observer: Observer) -> None:
        """Check the claims in ``overview``, which was read before the latest snapshot."""
        self.checked += 1
        covered = overview.covered_as_of(Scope.ACTIVE)
        if self._status(overview).problem is None:
            for key in self._unknown(overview, observer, covered):
                self.false_healthy.setdefault(key, _sentence(key, covered, overview.now))
        last = overview.last(complete=True)
        if last is not None:
            began = float(last["ended_at"]) - float(last["duration_seconds"])
            for key in self._unknown(overview, observer, began):
                self.false_complete.setdefault(key, _sentence(key, began, overview.now))

    def _status(self, overview: Overview) -> Status:
        settings = self.settings
        return Status(
            now=overview.now,
            interval_seconds=settings.sweep_interval_seconds,
            repair_mode=settings.repair_mode,
            seen=overview,
            full_scan_interval_seconds=(
                settings.full_scan_interval_seconds if settings.active_index_name else None
            ),
        )

    def _unknown(
        self, overview: Overview, observer: Observer, covered: float
    ) -> Iterator[ChildKey]:
        """Yield stranded children that were overdue before ``covered``, but are not remembered."""
        snapshot = observer.latest
        if snapshot is None or covered <= 0:
            return
        until = datetime.fromtimestamp(covered, UTC) - self.margin
        for orchestration_id, key in observer.stranded:
            known = overview.known.get(orchestration_id)
            if known is not None and (known.waiting or known.stuck or known.handed_on):
                continue
            child = snapshot.orchestrations[orchestration_id].children[key]
            due = due_since(snapshot, child, observer.settings)
            if due is not None and due[0] + due[1] < until:
                yield orchestration_id, key


def _sentence(key: ChildKey, covered: float, now: float) -> str:
    return f"{key[1]} of {key[0]}: covered up to {now - covered:.0f} s ago, and not looked at"
