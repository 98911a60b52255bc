"""A sweeper whose sender only records requests, and whose clock is set by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from unittest.mock import Mock

from reconciler.repair.context import ReleaseRequest
from reconciler.sweeping.records import MemoryRecords
from reconciler.sweeping.segments import Scope, Segment
from reconciler.sweeping.sender import SegmentTask
from reconciler.sweeping.state import SweepState
from reconciler.sweeping.sweeper import Sweeper
from tests.support.metrics import RecordingMetrics

NOW = 1_000_000.0
INTERVAL = 60.0
ROTATION = 3600.0
TABLE, ACTIVE = Scope.TABLE, Scope.ACTIVE
FIRST = Segment(TABLE, 0, 2)


@dataclass
class Sent:
    """Records requests. ``room_left`` is how many more there is room for."""

    room_left: int = 100
    segments: list[SegmentTask] = field(default_factory=list)
    evaluated: list[str] = field(default_factory=list)

    def room(self) -> int:
        return self.room_left

    def segment(self, task: SegmentTask) -> None:
        self.segments.append(task)

    def evaluate(self, orchestration_id: str, _sweep_id: str, _since: float) -> None:
        self.evaluated.append(orchestration_id)

    def room_for_releases(self, *, in_turn: bool) -> int:
        raise AssertionError(in_turn)

    def release(self, requests: Sequence[ReleaseRequest]) -> None:
        raise AssertionError(requests)

    def labels(self) -> list[str]:
        """Return the labels of the segments, and forget them."""
        labels = [task.segment.label for task in self.segments]
        self.segments.clear()
        return labels


@dataclass
class Swept:
    """The sweeper, its state, and what it sent."""

    seconds: float = NOW
    sent: Sent = field(default_factory=Sent)
    metrics: RecordingMetrics = field(default_factory=RecordingMetrics)
    settings: dict[str, Any] = field(default_factory=dict)
    pause: Any = None

    def __post_init__(self) -> None:
        self.state = SweepState(MemoryRecords(lambda: self.seconds))

    def reconciler(self, **parts: Any) -> Any:
        settings = {
            "sweep_interval_seconds": INTERVAL,
            "full_scan_interval_seconds": ROTATION,
            "repair_mode": "repair",
            "active_index_name": None,
            "sweep_segments": 2,
            **self.settings,
        }
        found = Mock(settings=Mock(**settings), metrics=self.metrics, **parts)
        found.paused = lambda: self.pause
        return found

    def sweeper(self, *, report: bool = False, **parts: Any) -> Sweeper:
        reconciler = cast("Any", self.reconciler(**parts))
        return Sweeper(reconciler, self.state, self.sent, report=report)

    def read_all(self) -> None:
        """Read every segment to its end."""
        seen = self.state.overview()
        for scope, states in seen.segments.items():
            for task in [t for t in self.sent.segments if t.segment.scope == scope]:
                assert task.segment.number in states
                self.state.take(task.segment, "reader", self.seconds)
                self.state.finish(task.segment, "reader")
        self.sent.segments.clear()
