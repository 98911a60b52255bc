"""Scans one step of a segment, of the table or of the index of active children."""

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
    """Read one step of a segment, starting at ``place``, and nominate what is suspicious.

    ``watched``: see ``Step``.

    Raises:
        SettingsError: the segment is one of an index, but the settings name none.
        TemporaryError, PermanentError: the table cannot be read.
    """
    index = reconciler.settings.active_index_name
    step: Step
    if segment.scope is Scope.TABLE:
        step = SegmentScan(reconciler, segment, watched)
    elif index is not None:
        step = IndexScan(reconciler, segment, index, watched)
    else:
        raise SettingsError("ACTIVE_INDEX_NAME is not set here, but it is set at the sender")
    return step.run(place, out_of_time, nominate)


def nominate_recoveries(reconciler: Reconciler, nominate: Nominate, sweep_id: str) -> None:
    """Nominate orchestrations that an iteration task may have fixed lately.

    No orchestration row tells whether the live reconciler has processed such a fix.
    """
    try:
        # By this host's clock, not the store's: the platform's functions wrote these times.
        for name in reconciler.tasks.orchestrations_iterated(reconciler.clock() - RECOVERY_HORIZON):
            nominate(name, None)
    except ReconcilerError as error:
        # The sweep goes on without it; the next rotation looks as far back.
        reconciler.reporter.recoveries_unread(error, sweep_id)
