"""Scanning one step of a segment: of the whole table, or of an index of what is active."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.clock import OutOfTime
from reconciler.domain.touches import RECOVERY_HORIZON
from reconciler.errors import ReconcilerError, SettingsError
from reconciler.repair.reconciler import Reconciler
from reconciler.sweeping.index_scan import IndexScan
from reconciler.sweeping.scan_step import Nominate, SegmentResult, SegmentScan, Step
from reconciler.sweeping.segments import Place, Scope, Segment


def scan_segment(
    reconciler: Reconciler,
    segment: Segment,
    place: Place,
    *,
    out_of_time: OutOfTime,
    nominate: Nominate,
    watched: Mapping[str, str] | None = None,
) -> SegmentResult:
    """Read one step of a segment from ``place`` on, and nominate what is suspicious.

    ``watched``: as ``Step`` has it.

    Raises:
        SettingsError: it should read an index, and the settings name none.
        TemporaryError, PermanentError: the table cannot be read.
    """
    index = reconciler.settings.active_index_name
    step: Step
    if segment.scope is Scope.TABLE:
        step = SegmentScan(reconciler, segment, watched)
    elif index is not None:
        step = IndexScan(reconciler, segment, index, watched)
    else:
        raise SettingsError("ACTIVE_INDEX_NAME is not set here, but is where this was sent")
    return step.run(place, out_of_time, nominate)


def nominate_recoveries(reconciler: Reconciler, nominate: Nominate, sweep_id: str) -> None:
    """Nominate what an iteration has mended lately; no row tells whether it was recovered."""
    try:
        # By our own clock: it is compared with what the platform's functions wrote by theirs.
        for name in reconciler.tasks.orchestrations_iterated(reconciler.clock() - RECOVERY_HORIZON):
            nominate(name, None)
    except ReconcilerError as error:
        # The rest of the sweep does not need it; the next rotation looks as far back.
        reconciler.reporter.recoveries_unread(error, sweep_id)
