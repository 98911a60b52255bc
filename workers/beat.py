"""Beat: any number of them, and one sweep for each interval.

Each beat asks for the interval's own sweep, whose id and gate key end in the interval's number;
the gate lets one through. There is no leader to lose, and no file to share.
"""

from __future__ import annotations

from datetime import timedelta

import structlog
from celery.beat import ScheduleEntry, Scheduler

from reconciler.errors import TemporaryError
from workers.enqueue import enqueue_sweep

log = structlog.get_logger("reconciler")


class GatedScheduler(Scheduler):
    """Celery's own scheduler, with sweeps sent through the gate."""

    def setup_schedule(self) -> None:
        """Take the schedule over; a beat that starts asks for a sweep at once."""
        super().setup_schedule()
        for name, options in self.app.conf.beat_schedule.items():
            waited = timedelta(seconds=options["schedule"])
            self.schedule[name].last_run_at = self.app.now() - waited

    def apply_async(
        self,
        entry: ScheduleEntry,
        producer: object = None,  # noqa: ARG002 - Celery's
        advance: bool = True,  # noqa: FBT001, FBT002 - Celery's
        **_: object,
    ) -> bool | None:
        """Send an entry; a broker that is away is met again at the next interval."""
        if advance:
            self.reserve(entry)
        try:
            sent = enqueue_sweep(self.app)
        except TemporaryError as error:
            log.warning("orch.sweep.failed", error_kind=error.kind, detail=str(error))
            return None
        return sent
