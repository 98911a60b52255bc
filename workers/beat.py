"""Beat: any number of them, and one sweep for each interval, asked for three times.

Each beat asks for the interval's own sweep; the dedup key of that ask lets one beat through. There
is no leader to lose, and no file to share.

Each asks at fixed points of the interval, and when it starts itself. Were it to count from when it
asked last, a beat that is restarted late in an interval would go on asking late in each.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from celery.beat import ScheduleEntry, Scheduler

from reconciler.errors import TemporaryError
from workers.enqueue import bucket_of, enqueue_sweep
from workers.outage import LOST, Outage, check_broker


class GatedScheduler(Scheduler):
    """Celery's own scheduler, with sweeps sent through the gate."""

    def setup_schedule(self) -> None:
        """Take the schedule over; a beat that starts asks for a sweep at once.

        Raises:
            SystemExit: the broker is in cluster mode.
        """
        self._outage = Outage()
        try:
            check_broker()
        except LOST as error:
            self._outage.began(error)
        super().setup_schedule()
        for name, options in self.app.conf.beat_schedule.items():
            waited = timedelta(seconds=options["schedule"])
            self.schedule[name].last_run_at = self.app.now() - waited

    def reserve(self, entry: ScheduleEntry) -> Any:  # noqa: ANN401 - its stub names another type
        """Have an entry due next when the next interval begins."""
        reserved: Any = super().reserve(entry)
        seconds = self.app.conf.beat_schedule[entry.name]["schedule"]
        began = bucket_of(seconds, self.app.now().timestamp()) * seconds
        reserved.last_run_at = datetime.fromtimestamp(began, UTC)
        return reserved

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
            self._outage.began(error)
            return None
        self._outage.ended()
        return sent
