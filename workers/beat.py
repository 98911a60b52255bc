"""Beat: any number of beats ask for one sweep in each interval, three times.

Each beat asks for the interval's sweep, and the dedup key of each ask lets only one beat through.
So there is no leader to lose and no file to share.

Beats ask at fixed points of the interval, by the broker's clock, and wait by the monotonic clock.
So all beats ask at the same points, even if a wall clock is wrong or jumps. A restarted beat asks
at once, and then at those points.

Celery sends every other entry of ``beat_schedule``: by the wall clock, and once for each beat.
"""

from __future__ import annotations

import time
from typing import Any

from celery.beat import ScheduleEntry, Scheduler, SchedulingError
from celery.schedules import schedstate, schedule
from kombu import Producer

from reconciler.errors import TemporaryError
from workers.enqueue import UNREACHABLE, ask_for_sweep
from workers.heartbeat import Pulse
from workers.outage import LOST, Outage, check_broker

_RETRY_SECONDS = 30.0
"""How soon to ask again if the broker was away; an interval may last a day."""


class AskPoints(schedule):
    """When to ask for a sweep: at once, and then after each ``wait``.

    ``every_seconds``: the usual time between two asks.
    """

    def __init__(self, every_seconds: float) -> None:
        super().__init__(every_seconds)
        self._next = time.monotonic()

    def wait(self, seconds: float) -> None:
        """Become due in so many seconds."""
        self._next = time.monotonic() + seconds

    def is_due(self, last_run_at: object) -> schedstate:  # noqa: ARG002 - of the wall clock
        """Return whether to ask now, and in how many seconds to check again."""
        left = self._next - time.monotonic()
        return schedstate(left <= 0, left if left > 0 else self.seconds)


class SweepScheduler(Scheduler):
    """Celery's scheduler, except that it asks for sweeps as described above."""

    def setup_schedule(self) -> None:
        """Set up the schedule and check the broker.

        Raises:
            SystemExit: the broker is in cluster mode.
        """
        self._outage = Outage()
        self._pulse = Pulse()
        try:
            check_broker()
        except LOST as error:
            self._outage.began(error)
        super().setup_schedule()

    def tick(self, *args: Any, **options: Any) -> float:  # noqa: ANN401 - Celery's
        """Send what is due; returns in how many seconds to check again.

        Celery keeps its entries in a heap by wall-clock time and checks only the first. If the
        clock was set back, that one would hold up all others, so the heap is rebuilt.
        """
        self._pulse.beat()
        now = self.app.now()
        for entry in self.schedule.values():
            if entry.last_run_at is not None and entry.last_run_at > now:
                entry.last_run_at = now
        self._heap = None
        return float(super().tick(*args, **options))

    def apply_async(
        self,
        entry: ScheduleEntry,
        producer: Producer | None = None,
        advance: bool = True,  # noqa: FBT001, FBT002 - Celery's
        **options: Any,  # noqa: ANN401 - Celery's
    ) -> Any:  # noqa: ANN401 - Celery's
        """Send an entry; if the broker does not take it, it is sent when it is due again."""
        try:
            if isinstance(entry.schedule, AskPoints):
                # First, in case the ask fails: otherwise Celery would retry at once.
                entry.schedule.wait(min(entry.schedule.seconds, _RETRY_SECONDS))
                entry.schedule.wait(ask_for_sweep(self.app))
                sent = None
            else:
                sent = super().apply_async(entry, producer=producer, advance=advance, **options)
        except TemporaryError as error:
            self._outage.began(error)
            return None
        except SchedulingError as error:
            if not isinstance(error.__context__, UNREACHABLE):
                raise  # the entry itself is wrong
            self._outage.began(error.__context__)
            return None
        self._outage.ended()
        return sent
